"""What a sampler would give to a trial, known before the trial asks."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial


class Proposal:
    """Is asked like a trial, and asks a sampler, without an effect on the trial itself.

    Args:
        sampler: Is asked for what is not fixed.
        study: Its study.
        trial: The trial that begins.
        fixed: Parameters that have their values.

    Attributes:
        params: What was asked for so far, with its values.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        study: optuna.Study,
        trial: FrozenTrial,
        fixed: Mapping[str, Any],
    ) -> None:
        self.params: dict[str, Any] = {}
        self._sampler = sampler
        self._study = study
        self._trial = trial
        self._fixed = fixed

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number of a range, both ends included."""
        number: int = self._suggest(name, IntDistribution(low, high, log=log, step=step))
        return number

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number of a range, both ends included."""
        number: float = self._suggest(name, FloatDistribution(low, high, log=log, step=step))
        return number

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._fixed:
            value = self._fixed[name]
        elif name in self._relative_params:
            value = self._relative_params[name]
        else:
            value = self._sampler.sample_independent(self._study, self._trial, name, distribution)
        self.params[name] = value
        return value

    @cached_property
    def _relative_params(self) -> dict[str, Any]:
        """What the sampler chooses jointly."""
        space = self._sampler.infer_relative_search_space(self._study, self._trial)
        return self._sampler.sample_relative(self._study, self._trial, space) if space else {}
