"""One dimension of a search space: a list of values, or a range of numbers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Value = TypeVar("Value")


class Range(BaseModel, Generic[Value]):
    """All numbers between two, both included.

    Args:
        low: The smallest.
        high: The largest, at least ``low``.
        step: Distance between neighbouring values; None for 1 between integers, and for a
            continuous range of other numbers.
        log: Whether to sample on a logarithmic scale; needs ``low`` above 0, and no step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    low: Value
    high: Value
    step: Annotated[Value, Field(gt=0)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Range[Value]":
        low: Any = self.low
        if low > self.high:
            raise ValueError(f"low={low} is above high={self.high}")
        if self.log and (low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0, and no step")
        return self


def _kind(value: Any) -> str:
    return "range" if isinstance(value, Mapping | Range) else "values"


Values: TypeAlias = Annotated[tuple[Value, ...], Field(min_length=1), Tag("values")]
DIMENSION = Discriminator(_kind)


def suggest_value(
    trial: "BaseTrial", name: str, every: tuple[Any, ...], allowed: tuple[Any, ...]
) -> Any:
    """One of the allowed values; a trial is asked only where there is more than one.

    Optuna wants the choices of a parameter to be the same in every trial. So where some values
    are not allowed, the parameter's name says which: ``rules without 0``.

    Args:
        trial: Is asked.
        name: The dimension.
        every: All its values.
        allowed: Those allowed beside what was chosen before, in the same order.
    """
    if len(allowed) == 1:
        return allowed[0]
    left_out = ", ".join(str(value) for value in every if value not in allowed)
    return trial.suggest_categorical(f"{name} without {left_out}" if left_out else name, allowed)


def suggest_number(trial: "BaseTrial", name: str, dimension: Any, *, positive: bool = False) -> Any:
    """A number of a dimension.

    Args:
        trial: Is asked where there is a choice.
        name: The dimension.
        dimension: Its values, or a range.
        positive: Whether 0 is left out.
    """
    if not isinstance(dimension, Range):
        allowed = tuple(value for value in dimension if value or not positive)
        return suggest_value(trial, name, dimension, allowed)
    low, step = dimension.low, dimension.step
    if positive and low == 0:
        low, name = step or 1, f"{name} without 0"
    if isinstance(low, int):
        return trial.suggest_int(name, low, dimension.high, step=step or 1, log=dimension.log)
    return trial.suggest_float(name, low, dimension.high, step=step, log=dimension.log)


def has_positive(dimension: Any) -> bool:
    """Whether there is a number above 0."""
    if isinstance(dimension, Range):
        return bool(dimension.high >= (dimension.low or dimension.step or 1))
    return any(value > 0 for value in dimension)
