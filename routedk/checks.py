"""Checks that the configs of all verbs share."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from routedk.errors import SettingError


def check_choices(config: object) -> None:
    """Check each field of a dataclass that is a ``Literal``, optional, or a tuple of such.

    Raises:
        SettingError: A value is not among those of its type.
    """
    for name, hint in get_type_hints(type(config)).items():
        allowed = list(_literals(hint))
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        wrong = [one for one in values if one is not None and one not in allowed]
        if allowed and wrong:
            raise SettingError(f"{name}={wrong[0]!r}: allowed are {', '.join(allowed)}")


def check_least(config: object, **least: int) -> None:
    """Check settings against the least value of each; None, not set, is allowed.

    Args:
        config: Has the settings.
        **least: From a setting to its least value.

    Raises:
        SettingError: One is below it.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise SettingError(f"{name}={value}: it must be at least {bound}")


def _literals(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        for part in get_args(hint):
            yield from _literals(part)
