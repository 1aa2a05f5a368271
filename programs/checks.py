"""What programs around a generator require of their settings, and of what judges say."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import dspy

from routedk.errors import SettingError


def check_generator(generator: Any) -> None:
    """Check that it is a program.

    Raises:
        SettingError: It is not.
    """
    if not isinstance(generator, dspy.Module):
        raise SettingError(
            f"the generator is of {type(generator).__name__}: it must be a dspy.Module that takes "
            "session=, for example a BundleGenerator"
        )


def no_lm() -> SettingError:
    """What to raise where a program has no language model."""
    return SettingError("no language model: dspy.configure(lm=...) or set_lm first")


def check_count(name: str, value: Any, least: int) -> None:
    """Check a whole number.

    Raises:
        SettingError: It is another, or less than the least.
    """
    if not isinstance(value, Integral):
        raise SettingError(f"{name}={value!r}: it must be a whole number")
    if value < least:
        raise SettingError(f"{name}={value}: it must be at least {least}")


def check_temperature(temperature: float) -> None:
    """Check the temperature of draws that are to differ.

    Raises:
        SettingError: It is not in (0, 2].
    """
    if not 0 < temperature <= 2:
        raise SettingError(
            f"temperature={temperature}: it must be above 0, or all draws agree, and at most 2"
        )


def check_judge(name: str, judge: Any) -> None:
    """Check that it can be called.

    Raises:
        SettingError: It cannot.
    """
    if not callable(judge):
        raise SettingError(f"the {name} is of {type(judge).__name__}: it must be callable")


def check_judged(
    name: str, values: Sequence[Any], count: int, allowed: Callable[[Any], bool], wanted: str
) -> None:
    """Check what a judge says: one number for each of what it was asked about.

    Args:
        name: Of the judge.
        values: What it says.
        count: What it was asked about.
        allowed: Whether a number may be said.
        wanted: What such a number is.

    Raises:
        SettingError: There are more or fewer, or one is not allowed.
    """
    if len(values) != count:
        raise SettingError(f"the {name} gave {len(values)} numbers for {count} candidates")
    for value in values:
        if not (isinstance(value, Real) and allowed(value)):
            raise SettingError(f"the {name} gave {value}: it must be {wanted}")
