"""The experts of a trial, trained by `train` over the trial's store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from routedk.adapters.train import train
from routedk.artifacts import Artifact
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.stages.common import Ledger
from routedk.types import KnowledgeBase, Session

EXPERTS = "."


@dataclass(frozen=True)
class Lessons:
    """What there is to learn.

    Args:
        ledger: Of the trial.
        knowledge: What was distilled, in the trial's formats.
        sample: The sessions that it was distilled from.
        targets: The gold answer of each annotated session, by its id.
    """

    ledger: Ledger
    knowledge: KnowledgeBase
    sample: Sequence[Session]
    targets: Mapping[str, str]


def trained(ledger: Ledger, settings: TrialSettings, lessons: Lessons) -> Artifact:
    """The trial's experts under its fusion."""
    common = ledger.common
    given = {
        "expert_names": settings.experts,
        "fusion": settings.fusion,
        "r": settings.r,
        "epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    config = replace(common.plan, student=common.student, seed=common.seed, **chosen)
    ledger.make_room()
    folder = train(common.train, lessons.knowledge, config, store=common.store)
    part = Artifact(folder=folder, key=folder.name, reused=False, seconds=0.0)
    ledger.note(part)
    return part
