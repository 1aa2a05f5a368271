"""Samplers and pruners by name, and what makes a study's proposals reproducible."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from routedk.errors import SettingError
from routedk.optimizers.search.proposal import Proposal
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.space import SearchSpace
from routedk.optimizers.search.workers import claim, position

logger = logging.getLogger(__name__)

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
# For one trial, by its sampler and then at random. A GP takes seconds for each.
_PROPOSALS = 5
_AT_RANDOM = 100
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
    """Proposes what was not tried before, by a sampler made anew for each trial.

    Optuna stores no sampler's random state, so that a study that was cut would go on with other
    trials than one that was not. Here the first trials are the corners, and what comes after
    depends on the seed, on the place and on the trials before: a place is that of a trial's first
    attempt, and where a worker alone runs the study it is the number of trials told so far.

    Within a study settings decide a trial's result, so those of another trial would teach nothing:
    after the corners another seed is taken, and later random choice, until new ones are found or
    there seem to be none.

    Args:
        study: The study, unfiltered by its pruner.
        name: One of ``SAMPLERS``.
        seed: Base seed, at least 0.
        space: What is chosen from.
        corners: Parameters of the first trials.
    """

    def __init__(
        self,
        study: optuna.Study,
        name: str,
        seed: int,
        space: SearchSpace,
        corners: Sequence[Mapping[str, Any]],
    ) -> None:
        self._study = study
        self._make = SAMPLERS[check_sampler(name)]
        self._seed = seed
        self._space = space
        self._corners = corners
        self._params: dict[int, Mapping[str, Any]] = {}
        self._inner: BaseSampler = RandomSampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Say who runs the trial, find its place, and choose all of its parameters."""
        claim(self._study, trial)
        trials = self._study.get_trials(deepcopy=False)
        place = position(trial, trials)
        # Of a trial that is tried again, and of one that was queued by hand.
        fixed = {**trial.params, **trial.system_attrs.get("fixed_params", {})}
        if place < len(self._corners):
            fixed = {**self._corners[place], **fixed}
            self._params[trial.number] = self._proposed(study, trial, place, 0, fixed)[0]
            return
        own = {trial.number, *trial.system_attrs.get("retry_history", ())}
        tried = [other.user_attrs.get("settings") for other in trials if other.number not in own]
        params, settings = self._new(study, trial, place, {}, tried)
        if not fixed.items() <= params.items():
            params, settings = self._new(study, trial, place, fixed, tried)
        self._params[trial.number] = params
        # So that another worker tries something else meanwhile.
        tell = self._study._storage.set_trial_user_attr
        tell(trial._trial_id, "settings", settings.to_dict())

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: all is chosen before."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: all is chosen before."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value that was chosen before the trial."""
        return self._params[trial.number][param_name]

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """See `optuna.samplers.BaseSampler.after_trial`."""
        self._params.pop(trial.number, None)
        self._inner.after_trial(study, trial, state, values)

    def _new(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        place: int,
        fixed: Mapping[str, Any],
        tried: Sequence[Any],
    ) -> tuple[Mapping[str, Any], TrialSettings]:
        """The first proposal whose settings were not tried; the last one where there is none."""
        for attempt in range(_PROPOSALS + _AT_RANDOM):
            params, settings = self._proposed(study, trial, place, attempt, fixed)
            if settings.to_dict() not in tried:
                break
        else:
            logger.info("trial %d: nothing new was found, it repeats another", trial.number)
        return params, settings

    def _proposed(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        place: int,
        attempt: int,
        fixed: Mapping[str, Any],
    ) -> tuple[Mapping[str, Any], TrialSettings]:
        """All parameters of a trial, and the settings that they make."""
        make = self._make if attempt < _PROPOSALS else SAMPLERS["random"]
        seeds = np.random.SeedSequence((self._seed, place, attempt))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._inner = make(int(seeds.generate_state(1)[0]))
        self._inner.before_trial(study, trial)
        proposal = Proposal(self._inner, study, trial, fixed)
        settings = self._space.suggest(proposal)
        return proposal.params, settings
