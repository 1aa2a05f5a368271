"""`Pipeline`: from the settings of a trial to its answers, every part through the store.

::

    scores -> order -> knowledge ---> expert base -> expert rule, thought -> fused -> router
                           |                                                           |
                           +----------------------> program <-------------------------+
                                                       |
                                                  predictions
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routedk.adapters.engine.engine import student_lm
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.train import TrainConfig
from routedk.artifacts.store import Artifact, ArtifactStore
from routedk.errors import SettingError
from routedk.optimizers.search.part_report import PartReport
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.stages.common import Common, Ledger
from routedk.optimizers.search.stages.experts import EXPERTS, Lessons, trained
from routedk.optimizers.search.stages.knowledge import distilled, in_formats
from routedk.optimizers.search.stages.predictions import Record, answered
from routedk.optimizers.search.stages.program import PROGRAM, compiled
from routedk.optimizers.search.stages.sample import sampled
from routedk.programs.knowledge.neighbours import check_retriever
from routedk.similarity.encoders import default_encoder
from routedk.types import KnowledgeBase, Session


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A trial whose parts are made, ready to answer.

    Args:
        settings: The trial's.
        knowledge: What was distilled, in its formats.
        experts: Folder of its experts under its fusion, ready for `student_lm`; None: the student
            as it comes.
        program: Its compiled program.
        parts: What became of each part, those that `Pipeline.answers` makes added as they come.
        inputs: What tells its answers from others'.
    """

    settings: TrialSettings
    knowledge: KnowledgeBase
    experts: Path | None
    program: Path
    parts: list[PartReport]
    inputs: dict[str, Any]


class Pipeline:
    """Distils, trains, compiles and answers for the trials of one search.

    One thread uses a pipeline at a time; further workers have their own, over the same store.
    Close it: it holds a student.

    Args:
        train: Training sessions: knowledge, experts and neighbours come from those with gold.
        validation: Sessions that groupings are chosen on.
        store: Where artifacts are kept, or its folder; None for the default one.
        student: Folder or name of a causal LM; None for the embedded one.
        seed: Of all chance.
        dtype: Of the student where it answers, see `load_student`.
        plan: How experts and router are trained; learning rate and epochs are each trial's, and
            the passes over knowledge rows keep their proportion to the epochs.
        shape: Of the experts; their names and rank are each trial's.
        draws: Answers drawn by an enhancement that draws, at least 1.
        threads: Sessions under way at once, at least 1; answers come in chunks of as many.
        retriever: How neighbours are found, see `CompiledKnowledge`.

    Raises:
        SettingError: A value is not allowed, a session is in both sets, or one has no gold where
            it is needed.
    """

    def __init__(
        self,
        *,
        train: Sequence[Session],
        validation: Sequence[Session],
        store: ArtifactStore | str | Path | None,
        student: str | Path | None = None,
        seed: int = 0,
        dtype: str | None = None,
        plan: TrainConfig | None = None,
        shape: ExpertSettings | None = None,
        draws: int = 4,
        threads: int = 8,
        retriever: str = "tfidf",
    ) -> None:
        for name, value in (("draws", draws), ("threads", threads)):
            if value < 1:
                raise SettingError(f"{name}={value}: it must be at least 1")
        check_retriever(retriever)
        self.common = Common(
            train=tuple(train),
            validation=tuple(session for session in validation if session.bundles is not None),
            store=ArtifactStore.of(store),
            student=None if student is None else str(student),
            seed=seed,
            dtype=dtype,
            plan=plan or TrainConfig(),
            shape=shape or ExpertSettings(),
            draws=draws,
            threads=threads,
            retriever=retriever,
        )
        self._check()
        self._plain: Any = None
        self._routed: tuple[Path, Any] | None = None

    def check(self) -> None:
        """Find and load what every trial needs: a folder for the parts, student and encoder.

        Raises:
            RouteDKError: There is no such student, or not in this precision.
            OSError: The store cannot be written to.
        """
        self.common.store.root.mkdir(parents=True, exist_ok=True)
        self.lm(None)
        # Loading it is the time of no trial's part.
        default_encoder().encode([""])

    def prepare(self, settings: TrialSettings) -> Prepared:
        """Have every part of a trial but its answers, from the store or made now.

        Args:
            settings: The trial's.

        Raises:
            RouteDKError: The trial cannot be made, for a reason of its own.
            OSError: The store cannot be written to.
        """
        # A student that answers beside one that is trained would take memory from it.
        ledger = Ledger(self.common, make_room=self.close)
        sample: tuple[Session, ...] = ()
        knowledge = KnowledgeBase()
        if settings.formats:
            sample = sampled(ledger, settings.strategy, settings.ratio)
            knowledge = in_formats(distilled(ledger, sample), settings.formats)
        experts: Artifact | None = None
        if settings.use.trains:
            gold = distilled(ledger, self.common.annotated)
            targets = {thought.session_id: thought.text for thought in gold.thoughts}
            experts = trained(ledger, settings, Lessons(ledger, knowledge, sample, targets))
        folder = None if experts is None else experts.folder / EXPERTS
        program = compiled(ledger, settings, knowledge, experts, lambda: self.lm(folder))
        inputs = {
            "program": program.key,
            "experts": None if experts is None else experts.key,
            "student": self.common.fingerprint,
        }
        return Prepared(
            settings=settings,
            knowledge=knowledge,
            experts=folder,
            program=program.folder / PROGRAM,
            parts=ledger.parts,
            inputs=inputs,
        )

    def answers(
        self, prepared: Prepared, sessions: Sequence[Session]
    ) -> Iterator[tuple[Session, Record, int]]:
        """Answer sessions in their order; stop asking to stop the work.

        Answers of a whole set are kept; of a set that is stopped, those that were made so far are
        gone on from when the same set is asked for again.

        Args:
            prepared: The trial.
            sessions: What to answer; none of them is shown as a neighbour.

        Yields:
            The session, its prediction as in a predictions file, and the tokens that were read
            and written for it, those of all draws included.
        """
        ledger = Ledger(self.common)
        ledger.parts = prepared.parts
        yield from answered(
            ledger,
            prepared.program,
            prepared.inputs,
            prepared.settings.enhancement,
            lambda: self.lm(prepared.experts),
            sessions,
        )

    def lm(self, experts: Path | None) -> Any:
        """The student as a ``dspy.LM``, with experts or as it comes; the last of each is kept."""
        common = self.common
        if experts is None:
            if self._plain is None:
                self._plain = student_lm(None, common.student, dtype=common.dtype)
            return self._plain
        if self._routed is None or self._routed[0] != experts:
            self._close_routed()
            self._routed = (experts, student_lm(experts, common.student, dtype=common.dtype))
        return self._routed[1]

    def close(self) -> None:
        """Let go of the students."""
        self._close_routed()
        if self._plain is not None:
            self._plain.engine.close()
            self._plain = None

    def _close_routed(self) -> None:
        if self._routed is not None:
            self._routed[1].engine.close()
            self._routed = None

    def _check(self) -> None:
        common = self.common
        if not any(session.bundles for session in common.train):
            raise SettingError("no training session has gold bundles: there is nothing to distil")
        if not common.validation:
            raise SettingError("no validation session has gold: there is nothing to choose on")
        both = {s.id for s in common.train} & {s.id for s in common.validation}
        if both:
            raise SettingError(
                f"{len(both)} validation sessions are training sessions, e.g. {min(both)!r}: "
                "split again"
            )
