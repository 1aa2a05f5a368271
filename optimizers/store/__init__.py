"""What a search has made: every part under the hash of what made it, and none made twice.

Importing this package loads nothing heavy: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routedk.optimizers.store.keys import Recipe, content_hash
    from routedk.optimizers.store.store import Part, Store
    from routedk.optimizers.store.versions import code_version

__all__ = ["Part", "Recipe", "Store", "code_version", "content_hash"]

_HOMES = {
    "Part": "store",
    "Recipe": "keys",
    "Store": "store",
    "code_version": "versions",
    "content_hash": "keys",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
