"""Optuna's samplers by name, and a sampler whose seed survives a restart."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from optuna import Study
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

SAMPLERS: Mapping[str, Callable[..., BaseSampler]] = {
    "tpe": partial(TPESampler, multivariate=True, group=True, constant_liar=True),
    "nsgaii": partial(NSGAIISampler, population_size=10),
    "gp": GPSampler,
    "random": RandomSampler,
}


class SeededSampler:
    """One of ``SAMPLERS``, made anew for each trial, seeded by base seed + trial number.

    Optuna does not store the random state of a sampler. With one state per run, a resumed study
    would repeat its first samples, and workers that start at once would all try the same.

    Args:
        name: One of ``SAMPLERS``.
        seed: Base seed, at least 0.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._make = SAMPLERS[name]
        self._seed = seed
        self._inner = self._make(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the trial's own sampler."""
        self._inner = self._make(seed=self._seed + trial.number)

    def __getattr__(self, name: str) -> Any:
        """All else that Optuna asks of a sampler is the trial's own."""
        return getattr(self._inner, name)
