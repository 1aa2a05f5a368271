"""How long a study goes on: trials, minutes, tokens, whichever is used up first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from routedk.errors import SettingError
from routedk.optimizers.search.workers import counts


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a study may spend; no trial begins after it is used up, and none is cut.

    Args:
        trials: Trials of the whole study, those of all workers and of earlier runs among them,
            and the pruned and failed ones; at least 1. One that is tried again counts once.
        minutes: Minutes that this worker begins trials in, above 0.
        tokens: Tokens of all answers of the whole study, at least 1.

    Raises:
        SettingError: A value is out of range, or there is none.
    """

    trials: int | None = None
    minutes: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"{name}={value}: must be at least {least}")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise SettingError(f"minutes={self.minutes}: must be above 0 and finite")
        if self.trials is None and self.minutes is None and self.tokens is None:
            raise SettingError("how long? give --trials N, --minutes M or --tokens T")

    def used_up(self, trials: Sequence[FrozenTrial], seconds: float) -> str | None:
        """What is used up, in words; None where the study may go on.

        Args:
            trials: All trials of the study.
            seconds: How long this worker has run.
        """
        if self.trials is not None:
            done = sum(counts(trial, trials) for trial in trials)
            if done >= self.trials:
                return f"{done} trials are done"
        if self.minutes is not None and seconds >= 60 * self.minutes:
            return f"{self.minutes:g} minutes are over"
        if self.tokens is not None:
            spent = sum(trial.user_attrs.get("tokens_spent", 0) for trial in trials)
            if spent >= self.tokens:
                return f"{spent} tokens are spent"
        return None

    def is_taken(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether trials that are under way leave no room for another one, and none waits."""
        if self.trials is None or any(trial.state == TrialState.WAITING for trial in trials):
            return False
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        return running + sum(counts(trial, trials) for trial in trials) >= self.trials
