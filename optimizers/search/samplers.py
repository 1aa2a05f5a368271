"""Samplers and pruners by name, and what makes a study's proposals reproducible."""

import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from routedk.errors import SettingError
from routedk.optimizers.search.workers import position

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = MappingProxyType(
    {
        "tpe": lambda seed: TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            constant_liar=True,
        ),
        "nsgaii": lambda seed: NSGAIISampler(seed=seed, population_size=10),
        "gp": lambda seed: GPSampler(seed=seed),
        "random": lambda seed: RandomSampler(seed=seed),
    }
)
# By the number of sessions; before so many no trial is pruned.
_FIRST = 6
PRUNERS: Mapping[str, Callable[[int], BasePruner]] = MappingProxyType(
    {
        "none": lambda sessions: NopPruner(),
        "wilcoxon": lambda sessions: WilcoxonPruner(n_startup_steps=_FIRST),
        "median": lambda sessions: MedianPruner(n_warmup_steps=_FIRST),
        "hyperband": lambda sessions: HyperbandPruner(
            min_resource=min(_FIRST, sessions), max_resource=sessions
        ),
    }
)


def check_sampler(name: str) -> str:
    """The name of a sampler.

    Raises:
        SettingError: There is none of this name.
    """
    if name not in SAMPLERS:
        raise SettingError(f"sampler {name!r}: allowed are {', '.join(SAMPLERS)}")
    return name


def check_pruner(name: str | None, objective: str) -> str:
    """The name of a pruner; None for the objective's own: wilcoxon for one, none for two.

    Raises:
        SettingError: There is none of this name, or there are two objectives.
    """
    if name is not None and name not in PRUNERS:
        raise SettingError(f"pruner {name!r}: allowed are {', '.join(PRUNERS)}")
    if objective == "f1":
        return name or "wilcoxon"
    if name not in (None, "none"):
        raise SettingError(
            f"pruner {name!r}: Optuna prunes only where there is one objective, take --objective "
            "f1 or leave --pruner out"
        )
    return "none"


def make_pruner(name: str, sessions: int) -> BasePruner:
    """The named pruner for trials of so many sessions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return PRUNERS[name](sessions)


class SeededSampler(BaseSampler):
    """Makes a sampler anew for each trial, seeded by the trial's place in the study.

    Optuna stores no sampler's random state, so that a study that was cut would go on with other
    trials than one that was not. Here the first trials are the corners, and what comes after
    depends on the seed, on the place and on the trials before: a place is that of a trial's first
    attempt, and where a worker alone runs the study it is the number of trials told so far.

    Args:
        study: The study, unfiltered by its pruner.
        name: One of ``SAMPLERS``.
        seed: Base seed, at least 0.
        corners: Parameters of the first trials.
    """

    def __init__(
        self, study: optuna.Study, name: str, seed: int, corners: Sequence[Mapping[str, Any]]
    ) -> None:
        self._study = study
        self._make = SAMPLERS[check_sampler(name)]
        self._seed = seed
        self._corners = corners
        self._place = 0
        self._inner = self._seeded(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Find the trial's place, and seed by it."""
        self._place = position(trial, self._study.get_trials(deepcopy=False))
        self._inner = self._seeded(self._seed + self._place)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What the sampler proposes together; nothing of a corner."""
        if self._place < len(self._corners):
            return {}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `optuna.samplers.BaseSampler.sample_relative`."""
        return self._inner.sample_relative(study, trial, search_space) if search_space else {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A corner's value, or the sampler's: of each parameter for itself.

        A trial that was cut between two parameters and is tried again thus gets the same.
        """
        if self._place < len(self._corners):
            return self._corners[self._place][param_name]
        alone = self._seeded(self._seed + self._place + zlib.crc32(param_name.encode()))
        return alone.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """See `optuna.samplers.BaseSampler.after_trial`."""
        self._inner.after_trial(study, trial, state, values)

    def _seeded(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self._make(seed % 2**32)
