"""Experts, each trained by itself and kept by itself, and the routers over sets of them.

What experts learn to write is the gold answer: the intents of each item, as the annotation teacher
reads them from all annotated training sessions, whatever formats, strategy and ratio a trial
distils. Knowledge is what stands in their prompts. So the base expert, which sees none, is one for
all trials of one rank, learning rate and number of epochs; the rule expert is one for all that
distil the same rules, and the thought expert for all that distil the same thoughts: it is shown the
nearest of the sessions that were distilled.

The others start from the base expert's weights, as in `routedk train --one-by-one`, whose rows and
settings these are but for the knowledge rows, a share of each expert's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from routedk.adapters.experts.joined import join_experts, merge_gates
from routedk.adapters.experts.router import LEARNT
from routedk.adapters.student import DEFAULT_STUDENT, Student, load_student
from routedk.adapters.training.examples import TrainingRow, training_rows
from routedk.adapters.training.fit import FitSettings, fit_rows
from routedk.adapters.training.router_training import RouterTraining
from routedk.artifacts.recipe import content_hash
from routedk.artifacts.store import Artifact
from routedk.errors import SettingError
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.stages.common import Common, Ledger, sessions_hash
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session

EXPERTS = "experts"


class Lessons:
    """What each expert is shown and learns to write, and a hash of it.

    Args:
        ledger: Of the trial.
        knowledge: What was distilled, in the trial's formats.
        sample: The sessions that it was distilled from.
        targets: The gold answer of each annotated session, by its id.
    """

    def __init__(
        self,
        ledger: Ledger,
        knowledge: KnowledgeBase,
        sample: Sequence[Session],
        targets: Mapping[str, str],
    ) -> None:
        self.sessions = [session for session in ledger.common.train if session.bundles]
        own = {thought.session_id: thought.text for thought in knowledge.thoughts}
        rules = tuple(rule.text for rule in knowledge.rules)
        shown = tuple(session for session in sample if session.id in own)
        self.shown = {
            "base": CompiledKnowledge(thoughts=targets),
            "rule": CompiledKnowledge(rules=rules, thoughts=targets),
            "thought": CompiledKnowledge(sessions=shown, thoughts={**targets, **own}),
        }
        lessons = {"sessions": sessions_hash(self.sessions), "targets": content_hash(dict(targets))}
        self.inputs = {
            "base": lessons,
            "rule": {**lessons, "rules": content_hash(rules)},
            "thought": {
                **lessons,
                "shown": sessions_hash(shown),
                "thoughts": content_hash(own),
            },
        }

    def rows(self, student: Student, names: Sequence[str]) -> list[TrainingRow]:
        """The rows of these experts, in gate order."""
        return [
            replace(row, expert=place)
            for place, name in enumerate(names)
            for row in training_rows(student.tokenizer, self.sessions, self.shown[name], (name,))
        ]


def trained(ledger: Ledger, settings: TrialSettings, lessons: Lessons) -> Artifact:
    """The trial's experts under its fusion, ready to be served, in the folder ``experts``.

    Args:
        ledger: Of the trial.
        settings: Ones that train.
        lessons: What there is to learn.

    Raises:
        SettingError: There is nothing to learn, or the fusion cannot be trained as planned.
    """
    if not lessons.sessions:
        raise SettingError("no training session has gold bundles: experts are trained on them")
    names, fusion = tuple(settings.experts or ()), settings.fusion or ""
    learnt = "softmax" if fusion == "merged" else fusion
    plan = _settings(ledger.common, settings, names, learnt)
    base = _expert(ledger, "base", plan, lessons)
    experts = [base, *(_expert(ledger, name, plan, lessons, base) for name in names[1:])]
    if learnt not in LEARNT:
        return _fused(ledger, experts, fusion)
    router = _router(ledger, _fused(ledger, experts, "uniform"), plan, lessons)
    return _fused(ledger, [router], fusion) if fusion == "merged" else router


def _settings(
    common: Common, settings: TrialSettings, names: tuple[str, ...], fusion: str
) -> FitSettings:
    """The plan with the numbers of the trial; passes keep their proportion to each other."""
    plan, epochs = common.plan, settings.epochs or common.plan.epochs
    mine = replace(
        plan,
        epochs=epochs,
        knowledge_epochs=plan.knowledge_epochs * epochs / plan.epochs,
        learning_rate=settings.learning_rate or plan.learning_rate,
    )
    shape = replace(common.shape, experts=names, r=settings.r or common.shape.r)
    return mine.fit_settings(shape, fusion=fusion, seed=common.seed)


def _expert(
    ledger: Ledger, name: str, plan: FitSettings, lessons: Lessons, base: Artifact | None = None
) -> Artifact:
    """One expert, trained by itself."""
    common = ledger.common
    stage = plan.base if base is None else plan.knowledge
    alone = replace(
        plan,
        experts=replace(plan.experts, experts=(name,)),
        base=stage,
        fusion="uniform",
        router_training=RouterTraining(),
    )

    def make(out: Path, work: Path) -> None:
        student = _student(ledger)
        start = None if base is None else base.folder / EXPERTS / "expert_base"
        rows = lessons.rows(student, (name,))
        fit_rows(student, rows, work / EXPERTS, alone, start=start)
        (work / EXPERTS).rename(out / EXPERTS)

    inputs: dict[str, Any] = {**lessons.inputs[name], "student": common.fingerprint}
    if base is not None:
        inputs["base"] = base.key
    # What the router sees is its own affair.
    shape = {k: v for k, v in asdict(alone.experts).items() if k != "router_input"}
    settings = {"shape": shape, "training": asdict(stage), "seed": plan.seed}
    return ledger.obtain("expert", make, inputs=inputs, settings=settings)


def _fused(ledger: Ledger, parts: Sequence[Artifact], fusion: str) -> Artifact:
    """Experts put together under a fusion that learns nothing; ``merged`` is of a router."""
    folders = [part.folder / EXPERTS for part in parts]

    def make(out: Path, work: Path) -> None:
        student = _student(ledger)
        if fusion == "merged":
            merge_gates(student, folders[0], out / EXPERTS)
        else:
            join_experts(student, folders, out / EXPERTS, fusion)

    inputs = {"experts": [part.key for part in parts]}
    return ledger.obtain("fused", make, inputs=inputs, settings={"fusion": fusion})


def _router(ledger: Ledger, experts: Artifact, plan: FitSettings, lessons: Lessons) -> Artifact:
    """The experts with a router that was trained over them."""

    def make(out: Path, work: Path) -> None:
        student = _student(ledger)
        rows = lessons.rows(student, plan.experts.experts)
        fit_rows(student, rows, work / EXPERTS, plan, experts=experts.folder / EXPERTS)
        (work / EXPERTS).rename(out / EXPERTS)

    # Through the experts' keys it depends on all lessons.
    settings = {
        "fusion": plan.fusion,
        "training": asdict(plan.router),
        "how": asdict(plan.router_training),
        "router_input": plan.experts.router_input,
        "seed": plan.seed,
    }
    return ledger.obtain("router", make, inputs={"experts": experts.key}, settings=settings)


def _student(ledger: Ledger) -> Student:
    ledger.make_room()
    return load_student(ledger.common.student or DEFAULT_STUDENT)
