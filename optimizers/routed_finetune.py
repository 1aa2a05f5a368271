"""`RoutedFinetune`: a teleprompter that tunes the experts and the router of a program's LM.

| lesson | prompt                                        | answer                 | teaches      |
|--------|-----------------------------------------------|------------------------|--------------|
| gold   | what the expert's role shows, see             | the gold bundles, and  | every expert |
|        | `routedk.adapters.training.examples`          | the session's thought  |              |
| trace  | the program's own                             | its own, or a          | base         |
|        |                                               | teacher's              |              |

All prompts have the program's instruction and layout; its demos appear only in its own prompts, and
no prompt shows the gold of its own session. Answers are learned in the form that the experts write;
what that form cannot express is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from routedk.adapters.engine.engine import StudentEngine, student_lm
from routedk.adapters.train import TrainConfig, choose_lessons, shown_knowledge
from routedk.adapters.training.examples import (
    AnswerForm,
    Lesson,
    TrainingRow,
    Writes,
    encode_rows,
    naming_rows,
    seen_by,
    written_by,
)
from routedk.adapters.training.run import TrainingRun
from routedk.artifacts import ArtifactStore
from routedk.errors import SettingError
from routedk.optimizers.metric import check_apart, matched_f1_metric
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.prompting.item_intents import (
    compose_bundles,
    read_item_intents,
    render_item_intents,
)
from routedk.types import KnowledgeBase, Session


@dataclass(frozen=True, kw_only=True)
class FinetuneReport:
    """How many sessions, answers and rows a fine-tuning run learned from.

    Args:
        gold: Training sessions whose gold bundles were taught.
        asked: Answers that were requested and scored.
        accepted: Answers that the metric accepted.
        rows: Training rows of all experts.
        folder: Folder of the experts.
    """

    gold: int
    asked: int
    accepted: int
    rows: int
    folder: Path


class RoutedFinetune(Teleprompter):  # type: ignore[misc]
    """Trains experts and router on gold and on the program's own accepted answers.

    The compiled program has a new LM, which serves the new experts; its prompt does not change.
    The given program, its LM and the frozen student are left as they are. Works alone and in
    ``dspy.BetterTogether(metric, p=..., w=RoutedFinetune(...))``. Every compilation starts from
    the frozen student, not from the experts of the previous one.

    Args:
        knowledge: For the rule and thought experts; without it only the base expert is trained.
        config: Settings; by default those of `train`, for the experts that can be trained and with
            the answer form that the program needs. The student is that of the program's LM.
        metric: Maps an example and a prediction to a number in [0, 1], higher is better.
        threshold: The lowest score, in [0, 1], at which the program's answers are learned from in
            addition to the gold; None learns from gold alone.
        num_threads: Concurrent calls to the LM.
        store: Keeps the trained experts: the same lessons are not learned twice, and a killed run
            can resume. None for the default store in the cache folder.

    Attributes:
        reports: One per compilation, the latest last.

    Raises:
        SettingError: A value is not allowed, or experts that need knowledge are to be trained
            without it.
    """

    def __init__(
        self,
        *,
        knowledge: KnowledgeBase | None = None,
        config: TrainConfig | None = None,
        metric: Callable[[Any, Any], Any] = matched_f1_metric,
        threshold: float | None = 0.8,
        num_threads: int = 16,
        store: ArtifactStore | str | Path | None = None,
    ) -> None:
        """Check and keep the settings."""
        super().__init__()
        if threshold is not None and not 0 <= threshold <= 1:
            raise SettingError(f"threshold={threshold}: it must be in [0, 1]")
        self._form = None if config is None else config.answer_form
        if config is None:
            config = TrainConfig() if knowledge else TrainConfig(expert_names=("base",))
        informed = [name for name in config.expert_names if name != "base"]
        if informed and knowledge is None:
            raise SettingError(
                f"experts {informed} learn with knowledge in their prompts: give knowledge=, or a "
                "config with the expert base alone"
            )
        self._knowledge = knowledge or KnowledgeBase()
        self._config = config
        self._metric = metric
        self._threshold = threshold
        self._num_threads = num_threads
        self._store = ArtifactStore.of(store)
        self.reports: list[FinetuneReport] = []

    def compile(
        self,
        student: BundleGenerator,
        *,
        trainset: Sequence[Any],
        teacher: Any = None,
        valset: Sequence[Any] | None = None,
    ) -> BundleGenerator:
        """Return a copy of the program with a tuned LM.

        Args:
            student: The program; its predictor's LM, or that of the surrounding
                ``dspy.context(lm=...)``, must be a student in this process.
            trainset: Examples to learn from: the gold bundles of those that have any, and the
                accepted answers to all annotated ones, including those annotated "no bundle".
            teacher: Program, or list of programs, whose answers are learned under the student's
                prompts instead of the student's own.
            valset: Not learned from; only checked for overlap with the training data.

        Returns:
            The program; its LM's ``launch_kwargs["experts"]`` names the folder of experts.

        Raises:
            SettingError: The program or its LM is of another type, the sets overlap, no session
                has gold bundles, or an expert has nothing to learn.
        """
        if not isinstance(student, BundleGenerator):
            raise SettingError(
                f"RoutedFinetune tunes a BundleGenerator, this is a {type(student).__name__}"
            )
        lm = student.generate.lm or dspy.settings.lm
        engine = getattr(lm, "engine", None)
        if not isinstance(engine, StudentEngine):
            raise SettingError(
                f"the language model {getattr(lm, 'model', lm)!r} has no weights to train here: "
                "use a student in this process, made by student_lm"
            )
        base, grouped = engine.generator.base, student.groups_by() is not None
        form = self._form or ("bundle-intent" if grouped else "item-intents")
        if form == "bundle-intent" and not grouped:
            raise SettingError(
                f"answer_form={form!r}: neither the program nor its language model groups "
                "items; give BundleGenerator a grouping, or take item-intents"
            )
        check_apart(trainset, valset or (), self._knowledge)
        by_id = {e.session.id: e for e in trainset if e.session.bundles is not None}
        if not any(example.session.bundles for example in by_id.values()):
            raise SettingError("no training session has gold bundles: there is nothing to learn")
        # The order of the training set does not matter.
        examples = self._config.sampled([by_id[name] for name in sorted(by_id)])
        traces, asked = self._traces(student, teacher, examples)
        config = replace(self._config, student=base.name, answer_form=form)
        rows = self._rows(base.tokenizer, student, examples, traces, form)
        folder = TrainingRun(config, self._store).train(rows)
        dtype = str(base.model.dtype).removeprefix("torch.")
        grouping = engine.grouping if form == "bundle-intent" else None
        tuned_lm = student_lm(folder, grouping=grouping, dtype=dtype)
        tuned_lm.launch_kwargs = {"experts": str(folder)}
        report = FinetuneReport(
            gold=sum(bool(example.session.bundles) for example in examples),
            asked=asked,
            accepted=len(traces),
            rows=sum(map(len, rows.values())),
            folder=folder,
        )
        self.reports.append(report)
        tuned: BundleGenerator = student.deepcopy()
        tuned.set_lm(tuned_lm)
        return tuned

    def _traces(
        self, student: BundleGenerator, teacher: Any, examples: Sequence[Any]
    ) -> tuple[list[Lesson], int]:
        """Accepted answers, sorted by session id, and how many were requested."""
        if self._threshold is None:
            return [], 0
        sessions = [example.session for example in examples]
        teachers = teacher if isinstance(teacher, list) else [teacher or student]
        traces = []
        for program in teachers:
            answers = generate_all(program, sessions, num_threads=self._num_threads)
            for example, answer in zip(examples, answers, strict=True):
                if not answer.error and float(self._metric(example, answer)) >= self._threshold:
                    traces.append(_lesson(example.session, answer))
        return sorted(traces, key=lambda one: one[0].id), len(teachers) * len(examples)

    def _rows(
        self,
        tokenizer: Any,
        student: BundleGenerator,
        examples: Sequence[Any],
        traces: Sequence[Lesson],
        form: AnswerForm,
    ) -> dict[str, list[TrainingRow]]:
        """The training rows of each expert."""
        gold = [example.session for example in examples if example.session.bundles]
        lessons = choose_lessons(gold, self._knowledge, form)
        shown = shown_knowledge(lessons, self._knowledge, form)

        def taught(program: BundleGenerator, some: Sequence[Lesson], writes: Writes) -> Any:
            if form != "bundle-intent":
                return encode_rows(tokenizer, some, writes, program.prompt)
            sessions = [session for session, _ in some]
            naming = partial(program.namer.prompt, knowledge=program.knowledge)
            return naming_rows(tokenizer, sessions, naming)

        rows: dict[str, list[TrainingRow]] = {name: [] for name in self._config.expert_names}
        for name in rows:
            if name == "thought" and not shown[name].sessions:
                continue  # Its prompt shows a neighbour with its thought, but there is none.
            program = student.deepcopy()
            program.generate.demos, program.namer.name.demos = [], []
            program.knowledge = seen_by(name, shown[name])
            rows[name] = taught(program, lessons, written_by([name], form))
        rows["base"] += taught(student, traces, form)
        if idle := [name for name, mine in rows.items() if not mine]:
            raise SettingError(
                f"experts {idle} have nothing to learn in the form {form!r}: "
                "give knowledge that has the training sessions' thoughts, or leave them out of "
                "the config"
            )
        return rows


def _lesson(session: Session, answer: Any) -> Lesson:
    """An answer in the form that is learned.

    Its thought is learned if it yields the bundles that were scored. A grouping may have formed
    others from it; then a new thought is written from these.
    """
    bundles = tuple(answer.bundles)
    meant = {bundle.items for bundle in bundles}
    intents = [[b.intent for b in bundles if item.id in b.items] for item in session.items]
    for thought in (answer.get("thought") or "", render_item_intents(intents)):
        named = read_item_intents(thought, len(session.items))
        if any(named) and {bundle.items for bundle in compose_bundles(named, session)} == meant:
            return replace(session, bundles=bundles), thought
    return replace(session, bundles=bundles), ""
