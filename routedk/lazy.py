"""Names of a package that are loaded when they are first used."""

from collections.abc import Callable, Mapping
from importlib import import_module


def loaded_on_use(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A package's ``__getattr__``: importing the package imports none of these modules.

    Args:
        package: Its ``__name__``.
        homes: The module of each public name, within the package or by its full name.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        home = home if home.startswith("routedk.") else f"{package}.{home}"
        return getattr(import_module(home), name)

    return load
