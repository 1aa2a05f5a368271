"""What all stages of all trials of one search have in common, and how a stage asks for its part."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.student import DEFAULT_STUDENT, find_student, fingerprint
from routedk.adapters.train import TrainConfig
from routedk.artifacts.recipe import Recipe, content_hash
from routedk.artifacts.store import Artifact, ArtifactStore
from routedk.data.records import session_to_record
from routedk.optimizers.search.part_report import PartReport
from routedk.types import Session


@dataclass(frozen=True, kw_only=True)
class Common:
    """What does not change from trial to trial.

    Args:
        train: Training sessions.
        validation: Sessions that choices are made on; none of them among the training sessions.
        store: Keeps every part.
        student: Folder or name of the student; None for the embedded one.
        seed: Of all chance.
        dtype: Of the student where it answers, see `load_student`.
        plan: How experts and router are trained; learning rate and epochs are each trial's.
        shape: Of the experts; their names and rank are each trial's.
        draws: Answers drawn by an enhancement that draws, at least 1.
        threads: Sessions under way at once.
        retriever: How neighbours are found, see `CompiledKnowledge`.
        patterns_shown: Patterns in a prompt that shows any, the nearest ones.
    """

    train: tuple[Session, ...]
    validation: tuple[Session, ...]
    store: ArtifactStore
    student: str | None
    seed: int
    dtype: str | None
    plan: TrainConfig = field(default_factory=TrainConfig)
    shape: ExpertSettings = field(default_factory=ExpertSettings)
    draws: int = 4
    threads: int = 8
    retriever: str = "tfidf"
    patterns_shown: int = 3

    @cached_property
    def annotated(self) -> tuple[Session, ...]:
        """The training sessions that somebody annotated, those without a bundle, too."""
        return tuple(session for session in self.train if session.bundles is not None)

    @cached_property
    def train_hash(self) -> str:
        """Of the training sessions, gold included, and their order."""
        return sessions_hash(self.train)

    @cached_property
    def validation_hash(self) -> str:
        """Of the validation sessions, gold included, and their order."""
        return sessions_hash(self.validation)

    @cached_property
    def fingerprint(self) -> str:
        """The student's."""
        return fingerprint(find_student(self.student or DEFAULT_STUDENT))

    @cached_property
    def precision(self) -> str:
        """The dtype in which the student answers here."""
        import torch

        return self.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")


class Ledger:
    """The parts of one trial, as it asks for them.

    Args:
        common: What all trials share.
        make_room: Called before a student is loaded to be trained.

    Attributes:
        parts: A report for each, in the order they were asked for.
    """

    def __init__(self, common: Common, make_room: Callable[[], None] = lambda: None) -> None:
        self.common = common
        self.make_room = make_room
        self.parts: list[PartReport] = []

    def obtain(
        self,
        stage: str,
        make: Callable[[Path, Path], None],
        *,
        inputs: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> Artifact:
        """A part from the store, or made now; see `ArtifactStore.obtain`."""
        recipe = Recipe(stage=stage, inputs=inputs, settings=settings)
        asked = time.monotonic()
        part = self.common.store.obtain(recipe, make)
        self.note(part, waited=time.monotonic() - asked if part.reused else 0.0)
        return part

    def note(self, part: Artifact, waited: float = 0.0) -> None:
        """Add a part to the report, unless it is there."""
        if all(part.key != known.key for known in self.parts):
            self.parts.append(
                PartReport(
                    stage=part.folder.parent.name,
                    key=part.key,
                    reused=part.reused,
                    seconds=part.seconds,
                    waited=round(waited, 3),
                )
            )


def sessions_hash(sessions: Sequence[Session]) -> str:
    """A hash of sessions with their items and gold, in their order."""
    return content_hash([session_to_record(session) for session in sessions])
