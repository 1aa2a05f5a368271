"""Checks that the configs of all verbs share."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from routedk.errors import SettingError


def check_choices(config: object) -> None:
    """Check the ``Literal`` fields of a dataclass, optional ones and tuples included.

    Raises:
        SettingError: A value is not one that its type allows.
    """
    for name, hint in get_type_hints(type(config)).items():
        allowed = list(_literals(hint))
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        wrong = [one for one in values if one is not None and one not in allowed]
        if allowed and wrong:
            raise SettingError(f"{name}={wrong[0]!r}: allowed are {', '.join(allowed)}")


def check_least(config: object, **least: int) -> None:
    """Check settings against their minimum values; None (not set) is allowed.

    Args:
        config: Holds the settings.
        **least: Minimum value of each setting, by name.

    Raises:
        SettingError: A setting is below its minimum.
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
