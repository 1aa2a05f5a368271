"""The items of the session that a language model is being asked about, apart from the prompt.

An engine that decodes line by line needs them, and a prompt is text: `BundleLayout` announces them
around each call, and the engine reads them on the caller's thread or task.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ITEMS: ContextVar[tuple[str, ...]] = ContextVar("asked_items", default=())


@contextmanager
def asking(items: tuple[str, ...]) -> Iterator[None]:
    """Announce the session's items to the engine for the calls within the block.

    Args:
        items: The session's numbered lines, as `Prompt.items` has them.
    """
    token = _ITEMS.set(items)
    try:
        yield
    finally:
        _ITEMS.reset(token)


def asked_items() -> tuple[str, ...]:
    """The item lines of the session being asked about; empty outside a request for bundles."""
    return _ITEMS.get()
