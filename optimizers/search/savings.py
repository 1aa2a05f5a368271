"""What the store saved a study: which parts were made, which were there already."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial


@dataclass(frozen=True, kw_only=True)
class Savings:
    """What trials took, and what they would have taken had each made everything itself.

    Args:
        seconds: What the trials took, failed ones among them, without their waits.
        waited: What they waited for parts that other workers were making.
        saved: What making the reused parts once more for each trial would have taken.
        saved_before: That part of ``saved`` which no trial of the study is recorded as having
            worked for: the first use of a part that was made before the study, or by a trial that
            failed or was killed.
        made: Parts made, by stage.
        reused: Parts reused, by stage.
        saved_by_stage: ``saved``, by stage.
        untimed: Trials that were begun and left no time: killed, or still under way.
        workers: Processes that ran trials.
    """

    seconds: float
    waited: float
    saved: float
    saved_before: float
    made: Mapping[str, int]
    reused: Mapping[str, int]
    saved_by_stage: Mapping[str, float]
    untimed: int
    workers: int

    @property
    def share(self) -> float:
        """The share of trial time saved against making everything for every trial, in [0, 1)."""
        return _share(self.saved, self.seconds)

    @property
    def share_within(self) -> float:
        """The same where the study had begun with an empty store."""
        return _share(self.saved - self.saved_before, self.seconds + self.saved_before)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        stages = sorted({*self.made, *self.reused})
        return {
            "seconds": round(self.seconds, 3),
            "waited_seconds": round(self.waited, 3),
            "saved_seconds": round(self.saved, 3),
            "share_saved": self.share,
            "saved_before_seconds": round(self.saved_before, 3),
            "share_saved_from_empty_store": self.share_within,
            "stages": {
                stage: {
                    "made": self.made.get(stage, 0),
                    "reused": self.reused.get(stage, 0),
                    "saved_seconds": round(self.saved_by_stage.get(stage, 0.0), 3),
                }
                for stage in stages
            },
            "untimed_trials": self.untimed,
            "workers": self.workers,
        }


def savings(trials: Sequence[FrozenTrial]) -> Savings:
    """What the store saved.

    Args:
        trials: All of a study.
    """
    parts = [part for trial in trials for part in trial.user_attrs.get("parts", ())]
    reused = [part for part in parts if part["reused"]]
    mine = {part["key"] for part in parts if not part["reused"]}
    before = {part["key"]: part["seconds"] for part in reused if part["key"] not in mine}
    by_stage: Counter[str] = Counter()
    for part in reused:
        by_stage[part["stage"]] += part["seconds"]
    begun = [trial for trial in trials if "worker" in trial.user_attrs]
    waited = sum(part.get("waited", 0.0) for part in parts)
    return Savings(
        seconds=sum(trial.user_attrs.get("seconds", 0.0) for trial in trials) - waited,
        waited=waited,
        saved=sum(part["seconds"] for part in reused),
        saved_before=sum(before.values()),
        made=Counter(part["stage"] for part in parts if not part["reused"]),
        reused=Counter(part["stage"] for part in reused),
        saved_by_stage=by_stage,
        untimed=sum("seconds" not in trial.user_attrs for trial in begun),
        workers=len({str(sorted(trial.user_attrs["worker"].items())) for trial in begun}),
    )


def _share(saved: float, seconds: float) -> float:
    return saved / (saved + seconds) if saved else 0.0
