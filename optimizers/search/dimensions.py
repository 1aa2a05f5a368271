"""One dimension of a search space: a list of values, or a range of numbers."""

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Strict, Tag, model_validator

Number = TypeVar("Number", int, float)
Value = TypeVar("Value")

_WITHOUT = " without "


class SuggestingTrial(Protocol):
    """What a space asks for values: an ``optuna.Trial``, or an ``optuna.trial.FixedTrial``."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""
        ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number of a range, both ends included."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number of a range, both ends included."""
        ...


class Range(BaseModel, Generic[Number]):
    """All numbers between two, both included.

    Args:
        low: The smallest.
        high: The largest, at least ``low``.
        step: Distance of neighbouring values; None for 1 among whole numbers, and for none
            among others.
        log: Whether factors count instead of differences; needs ``low`` above 0, and no step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    low: Number
    high: Number
    step: Annotated[Number, Field(gt=0)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Range[Number]":
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0, and no step")
        return self


def _kind(value: Any) -> str:
    return "range" if isinstance(value, Mapping | Range) else "values"


_Values: TypeAlias = Annotated[tuple[Value, ...], Field(min_length=1), Tag("values")]
IntDimension: TypeAlias = Annotated[
    _Values[Annotated[int, Strict()]] | Annotated[Range[int], Tag("range")], Discriminator(_kind)
]
FloatDimension: TypeAlias = Annotated[
    _Values[Annotated[float, Strict()]] | Annotated[Range[float], Tag("range")],
    Discriminator(_kind),
]
TAGS = ("values", "range")


def dimension_of(parameter: str) -> str:
    """The dimension that a trial's parameter belongs to.

    A parameter's choices never change between trials: where some values cannot be, the parameter
    says so in its name, as ``rules without 0`` does.
    """
    return parameter.partition(_WITHOUT)[0]


def suggest_value(
    trial: SuggestingTrial,
    name: str,
    every: tuple[Any, ...],
    allowed: tuple[Any, ...] | None = None,
) -> Any:
    """One of the allowed values; where there is but one, the trial is not asked.

    Args:
        trial: Is asked.
        name: The dimension.
        every: All its values.
        allowed: Those of them that can be here, at least one, in the same order; None for all.
    """
    allowed = every if allowed is None else allowed
    if len(allowed) == 1:
        return allowed[0]
    left_out = [str(value) for value in every if value not in allowed]
    label = name + (_WITHOUT + ", ".join(left_out) if left_out else "")
    return trial.suggest_categorical(label, allowed)


def suggest_number(
    trial: SuggestingTrial, name: str, dimension: Any, *, positive: bool | None = None
) -> Any:
    """A number of a dimension.

    Args:
        trial: Is asked where there is a choice.
        name: The dimension's name.
        dimension: Its values, or a range.
        positive: True leaves 0 out, False leaves only 0; None takes all.
    """
    if positive is False:
        return 0
    if not isinstance(dimension, Range):
        allowed = tuple(value for value in dimension if value or not positive)
        return suggest_value(trial, name, dimension, allowed)
    low, high, step = dimension.low, dimension.high, dimension.step
    if positive and low == 0:
        low, name = low + (step or 1), name + _WITHOUT + "0"
    if low == high:
        return low
    if isinstance(low, int):
        return trial.suggest_int(name, low, high, step=step or 1, log=dimension.log)
    return trial.suggest_float(name, low, high, step=step, log=dimension.log)


def has_zero(dimension: Any) -> bool:
    """Whether 0 is among the numbers."""
    return dimension.low <= 0 if isinstance(dimension, Range) else 0 in dimension


def smallest_positive(dimension: Any) -> Any:
    """The smallest number above 0; None where there is none."""
    if isinstance(dimension, Range):
        first = dimension.low or dimension.low + (dimension.step or 1)
        return first if first <= dimension.high else None
    return min((value for value in dimension if value > 0), default=None)
