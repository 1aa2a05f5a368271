"""The main job once, on the embedded set: distil, train, compile, evaluate."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import routedk
from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.files import read_json, write_json
from routedk.types import Answer, Session

if TYPE_CHECKING:
    from routedk.eval import Report

_STEPS = "steps.json"


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Sizes of the demo's steps, chosen for two CPU cores.

    Args:
        epochs: Passes of the base expert.
        knowledge_share: Share of rows for the rule and thought experts.
        router_share: Share of rows for the router.
        evaluations: Candidates that compilation scores.
        validation: Validation sessions it scores them on.
        seed: Seed of all chance.
    """

    epochs: float = 2.5
    knowledge_share: float = 0.08
    router_share: float = 0.03
    evaluations: int = 3
    validation: int = 12
    seed: int = 0


@dataclass
class Demo:
    """The steps, each done once per folder and settings.

    Args:
        folder: Where everything goes.
        settings: Sizes.
        say: Called with a line of progress.
    """

    folder: Path
    settings: DemoSettings = field(default_factory=DemoSettings)
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        """Load and split the sessions."""
        self.options = DataOptions(seed=self.settings.seed)
        self.sessions = load_sessions("demo", self.options)
        self.parts = split_sessions(self.sessions, self.options)
        self._lms: dict[str, Any] = {}

    @property
    def knowledge(self) -> Path:
        """What was distilled."""
        return self.folder / "knowledge.jsonl"

    @property
    def experts(self) -> Path:
        """The trained experts and router."""
        return self.folder / "experts"

    @property
    def program(self) -> Path:
        """The compiled program."""
        return self.folder / "program.json"

    @property
    def result(self) -> Path:
        """The evaluation."""
        return self.folder / "result.json"

    def run(self) -> None:
        """Do the steps that are not done yet."""
        steps = [
            ("distil", self.knowledge, self._distil),
            ("train", self.experts, self._train),
            ("compile", self.program, self._compile),
            ("predict", self.folder / "predictions", self._predict),
        ]
        done = self._done()
        digest = hashlib.sha256(f"{routedk.__version__}{self.settings}".encode())
        for number, (name, output, step) in enumerate(steps, start=1):
            digest.update(name.encode())
            key = digest.hexdigest()[:16]
            if done.get(name) == key and output.exists():
                self.say(f"{number}/{len(steps)} {name}: done before, in {output}")
                continue
            self.say(f"{number}/{len(steps)} {name} ...")
            step()
            done = {known: done[known] for known, _, _ in steps[: number - 1]} | {name: key}
            write_json(self.folder / _STEPS, done)

    def report(self) -> "Report":
        """Score the routed student, the untrained student and the baselines on test sessions."""
        from routedk.eval import EvaluateConfig, evaluate, read_predictions

        test = [session for session in self.parts["test"] if session.gold]
        answers = {
            name: read_predictions(self._predictions(name), self.sessions)
            for name in ("untrained-student", "routed-student")
        }
        seed = self.settings.seed
        report = evaluate(
            test,
            answers["routed-student"],
            EvaluateConfig(baselines=True, seed=seed),
            training=self.parts["train"],
            validation=self.parts["val"],
            catalogue=self.sessions,
        )
        zero_shot = evaluate(test, answers["untrained-student"], EvaluateConfig(seed=seed)).system
        assert report.system is not None
        assert zero_shot is not None
        report = replace(
            report,
            config={**report.config, "data": "demo", "split": "test"},
            system=replace(report.system, name="routed student"),
            baselines=(*report.baselines, replace(zero_shot, name="base model, zero-shot")),
        )
        write_json(self.result, report.to_dict())
        return report

    def examples(self, count: int) -> list[tuple[Session, Answer]]:
        """Some test sessions with what the routed student made of them."""
        from routedk.eval import read_predictions

        found = read_predictions(self._predictions("routed-student"), self.sessions)
        answers = {answer.session_id: answer for answer in found}
        shown = [session for session in self.parts["test"] if len(session.gold) > 1]
        return [(session, answers[session.id]) for session in shown[:count]]

    def _predictions(self, name: str) -> Path:
        return self.folder / "predictions" / f"{name}.jsonl"

    def _done(self) -> Mapping[str, str]:
        path = self.folder / _STEPS
        done = read_json(path) if path.exists() else {}
        return done if isinstance(done, dict) else {}

    def _distil(self) -> None:
        from routedk.data.knowledge_file import write_knowledge
        from routedk.programs.distill import distill

        write_knowledge(distill(self.parts["train"]), self.knowledge)

    def _train(self) -> None:
        from routedk.adapters.train import TrainConfig, train
        from routedk.artifacts import copy_artifact
        from routedk.data.knowledge_file import read_knowledge

        sizes = self.settings
        config = TrainConfig(
            epochs=sizes.epochs,
            knowledge_share=sizes.knowledge_share,
            knowledge_epochs=2.0,
            router_share=sizes.router_share,
            seed=sizes.seed,
        )
        experts = train(self.parts["train"], read_knowledge(self.knowledge), config)
        copy_artifact(experts, self.experts)

    def _compile(self) -> None:
        from routedk.data.knowledge_file import read_knowledge
        from routedk.optimizers.compile import CompileConfig, compile_program

        config = CompileConfig(
            evaluations=self.settings.evaluations,
            max_validation=self.settings.validation,
            seed=self.settings.seed,
        )
        knowledge = read_knowledge(self.knowledge)
        train, validation = self.parts["train"], self.parts["val"]
        program = compile_program(train, validation, knowledge, config, lm=self._routed_lm())
        program.save(self.program)

    def _predict(self) -> None:
        from routedk.adapters.engine.engine import student_lm
        from routedk.programs.generator import BundleGenerator
        from routedk.programs.program_file import load_program

        test = [session for session in self.parts["test"] if session.gold]
        self._write("routed-student", load_program(self.program), self._routed_lm(), test)
        self._write("untrained-student", BundleGenerator(), student_lm(), test)

    def _write(self, name: str, program: Any, lm: Any, sessions: Sequence[Session]) -> None:
        import dspy

        from routedk.eval import write_predictions
        from routedk.programs.batch import generate_all

        with dspy.context(lm=lm):
            answers = generate_all(program, sessions)
        made = [
            Answer(session.id, tuple(answer.bundles))
            for session, answer in zip(sessions, answers, strict=True)
        ]
        write_predictions(self._predictions(name), made)

    def _routed_lm(self) -> Any:
        from routedk.adapters.engine.engine import student_lm

        if "routed" not in self._lms:
            self._lms["routed"] = student_lm(self.experts)
        return self._lms["routed"]
