"""What a search has made: every part under the hash of what made it, and none made twice.

Importing this package loads nothing heavy: a name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from routedk.lazy import loaded_on_use

if TYPE_CHECKING:
    from routedk.artifacts.keys import Recipe, content_hash
    from routedk.artifacts.store import Part, Store

__all__ = ["Part", "Recipe", "Store", "content_hash"]

_HOMES = {
    "Part": "store",
    "Recipe": "keys",
    "Store": "store",
    "content_hash": "keys",
}

__getattr__ = loaded_on_use(__name__, _HOMES)
