"""Optuna's samplers by name, and a sampler whose seed survives a restart."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

SAMPLERS: Mapping[str, Callable[..., BaseSampler]] = {
    "tpe": partial(TPESampler, multivariate=True, group=True, constant_liar=True),
    "nsgaii": partial(NSGAIISampler, population_size=10),
    "gp": GPSampler,
    "random": RandomSampler,
}


class SeededSampler(BaseSampler):
    """One of ``SAMPLERS``, made anew for each trial, seeded by base seed + trial number.

    Optuna does not store the random state of a sampler. With one state per run, a resumed study
    would repeat its first samples, and workers that start at once would all try the same.

    Args:
        name: One of ``SAMPLERS``.
        seed: Base seed, at least 0.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._seed = seed
        self._inner: BaseSampler = RandomSampler(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the trial's own sampler."""
        self._inner = SAMPLERS[self._name](seed=self._seed + trial.number)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See `optuna.samplers.BaseSampler`."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `optuna.samplers.BaseSampler`."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See `optuna.samplers.BaseSampler`."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)
