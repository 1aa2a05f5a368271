"""`RoutedFinetune`: a teleprompter that tunes experts and router of a program's LM."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import dspy
from dspy.clients.utils_finetune import TrainDataFormat
from dspy.teleprompt import Teleprompter

from routedk.adapters.train import TrainConfig
from routedk.data.knowledge_file import sources_of
from routedk.errors import SettingError
from routedk.optimizers.finetune.lessons import (
    Accepted,
    accepted_answers,
    gold_answers,
    role_lessons,
    shown_knowledge,
    trace_lessons,
)
from routedk.optimizers.finetune.provider import finetunable
from routedk.optimizers.finetune.rows import Lesson
from routedk.optimizers.finetune.settings import finetune_settings
from routedk.optimizers.metric import matched_f1_metric
from routedk.programs.generator import BundleGenerator
from routedk.types import KnowledgeBase

Source = Literal["gold", "traces"]


@dataclass(frozen=True, kw_only=True)
class FinetuneReport:
    """What one compilation taught.

    Args:
        gold: Training sessions with gold bundles that were taught.
        asked: Answers that were asked for, to be scored.
        accepted: Those that the metric accepted.
        lessons: Lessons of all experts together, before each stage takes its share.
        folder: Where the experts are.
    """

    gold: int
    asked: int
    accepted: int
    lessons: int
    folder: Path


class RoutedFinetune(Teleprompter):  # type: ignore[misc]
    """Trains experts and router on gold and on the program's own accepted answers.

    The program comes back with another LM, which serves the new experts; its prompt stays. The
    given program, its LM and the frozen student stay as they are. Works alone, and in
    ``dspy.BetterTogether(metric, p=..., w=RoutedFinetune(...))``.

    Every compilation starts from the frozen student, not from the experts of the one before.

    Args:
        folder: Gets a folder of experts per training, named by a hash of all that it depends on;
            one that is finished is used again, one that was cut short goes on.
        knowledge: For the rule and thought experts; without it only the base expert is trained.
        settings: How to train, its seeds included; by default `finetune_settings`.
        metric: Of an example and a prediction: a number in [0, 1], higher is better.
        threshold: The lowest score at which an answer is learnt from, in [0, 1].
        sources: What to learn from: ``gold``, ``traces`` or both.
        num_threads: Calls to the LM under way at once.
        on_report: Called after each compilation, e.g. to show what was taught.

    Attributes:
        reports: One per compilation, the latest last.

    Raises:
        SettingError: A value is not allowed, or experts of knowledge are to be trained without
            knowledge.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        knowledge: KnowledgeBase | None = None,
        settings: TrainConfig | None = None,
        metric: Callable[[Any, Any], Any] = matched_f1_metric,
        threshold: float = 0.8,
        sources: Sequence[Source] = ("gold", "traces"),
        num_threads: int = 16,
        on_report: Callable[[FinetuneReport], None] | None = None,
    ) -> None:
        """Check and keep the settings."""
        super().__init__()
        if not 0 <= threshold <= 1:
            raise SettingError(f"threshold={threshold}: it must be in [0, 1]")
        if not sources or set(sources) - set(get_args(Source)):
            raise SettingError(f"sources={list(sources)}: at least one of gold, traces")
        if num_threads < 1:
            raise SettingError(f"num_threads={num_threads}: it must be at least 1")
        settings = settings or finetune_settings(with_knowledge=knowledge is not None)
        informed = [name for name in settings.expert_names if name != "base"]
        if informed and knowledge is None:
            raise SettingError(
                f"experts {informed} learn with knowledge in their prompts: give knowledge=, or "
                "settings with the expert base alone"
            )
        self._folder = Path(folder)
        self._knowledge = knowledge or KnowledgeBase()
        self._settings = settings
        self._metric = metric
        self._threshold = threshold
        self._sources = frozenset(sources)
        self._num_threads = num_threads
        self._on_report = on_report
        self.reports: list[FinetuneReport] = []

    def compile(
        self,
        student: BundleGenerator,
        *,
        trainset: Sequence[Any],
        teacher: Any = None,
        valset: Sequence[Any] | None = None,
    ) -> BundleGenerator:
        """Return a copy of the program over a tuned LM.

        Args:
            student: The program; its predictor's LM, or that of the surrounding
                ``dspy.context(lm=...)``, is a student in this process.
            trainset: Examples to learn from; those with gold bundles are taught as gold, and all
                with gold, also with "no bundle", are asked.
            teacher: Program, or programs, whose answers are learnt under the student's prompts,
                instead of the student's own.
            valset: Not learnt from; only checked to be apart from the training set.

        Returns:
            The program; its LM's ``launch_kwargs["experts"]`` names the folder of experts.

        Raises:
            SettingError: The program or its LM is another, the sets overlap, no answer is good
                enough to learn from, or an expert has nothing to learn.
            Exception: What the training raises, as it was raised.
        """
        if not isinstance(student, BundleGenerator):
            raise SettingError(
                f"RoutedFinetune tunes a BundleGenerator, this is a {type(student).__name__}: use "
                "dspy.BootstrapFinetune with finetunable(lm, folder) for other programs"
            )
        lm = finetunable(student.generate.lm or dspy.settings.lm, self._folder, self._settings)
        examples = self._examples(trainset, valset)
        lessons, counts = self._lessons(student, teacher, examples)
        job = lm.finetune(lessons, TrainDataFormat.CHAT)
        tuned_lm = job.result()
        job.thread.join()
        if isinstance(tuned_lm, Exception):
            raise tuned_lm
        report = FinetuneReport(**counts, lessons=len(lessons), folder=job.folder)
        self.reports.append(report)
        if self._on_report:
            self._on_report(report)
        tuned: BundleGenerator = student.deepcopy()
        tuned.set_lm(tuned_lm)
        return tuned

    def _examples(self, trainset: Sequence[Any], valset: Sequence[Any] | None) -> list[Any]:
        """Training examples with gold, each session once, in the order of ids."""
        scored = {example.session.id for example in valset or ()}
        by_id = {e.session.id: e for e in trainset if e.session.bundles is not None}
        for what, names in (
            ("the training set", {example.session.id for example in trainset}),
            ("what the knowledge was made from", sources_of(self._knowledge)),
        ):
            if both := sorted(scored & names):
                raise SettingError(
                    f"{len(both)} validation sessions are in {what}, e.g. {', '.join(both[:5])}: "
                    "scores on them would mean nothing (split again, or distil from the training "
                    "split)"
                )
        if not by_id:
            raise SettingError("no training session has gold: there is nothing to learn from")
        return [by_id[name] for name in sorted(by_id)]

    def _lessons(
        self, student: BundleGenerator, teacher: Any, examples: Sequence[Any]
    ) -> tuple[list[Lesson], dict[str, int]]:
        """Lessons of all experts, and what they were made of."""
        experts, form = self._settings.expert_names, self._settings.answer_form
        sessions = [example.session for example in examples]
        knowledge = shown_knowledge(self._knowledge, sessions)
        gold: list[Accepted] = []
        accepted: list[Accepted] = []
        asked = 0
        if "gold" in self._sources:
            gold = gold_answers(sessions, dict(knowledge.thoughts))
        if "traces" in self._sources:
            teachers = teacher if isinstance(teacher, list) else [teacher]
            programs = [student if one is None else one for one in teachers]
            asked = len(programs) * len(examples)
            for program in programs:
                accepted += accepted_answers(
                    program, examples, self._metric, self._threshold, num_threads=self._num_threads
                )
            if not gold and not accepted:
                raise SettingError(
                    f"none of {asked} answers to {len(examples)} sessions scores {self._threshold} "
                    "or more: there is nothing to learn from; a student as it comes answers badly, "
                    "so teach gold first (sources=('gold', 'traces')), or give compile() a "
                    "teacher= that answers well"
                )
            accepted = sorted(dict.fromkeys(accepted), key=lambda one: one.session.id)
        lessons: list[Lesson] = []
        if gold:
            lessons = role_lessons(student, gold, knowledge, experts, form)
        elif accepted:
            lessons = role_lessons(student, accepted, knowledge, experts[1:], form)
        lessons += trace_lessons(student, accepted, experts[0])
        return lessons, {"gold": len(gold), "asked": asked, "accepted": len(accepted)}
