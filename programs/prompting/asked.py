"""What a language model is being asked about, apart from the prompt.

An engine that decodes line by line needs to know this, but a prompt is just text: a layout
announces it around each call, and the engine reads it in the caller's thread or task.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """The items that a request is about, and the answer that it wants.

    Args:
        lines: The items' lines, as they appear in the last message; none outside a request about
            items.
        heads: The beginnings of the answer's lines, if each line is a separate completion; none
            if the answer states bundles of the items.
    """

    lines: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()


_ASKED: ContextVar[Asked] = ContextVar("asked", default=Asked())  # noqa: B039 -- it is frozen


@contextmanager
def asking(asked: Asked) -> Iterator[None]:
    """Announce to the engine what the calls within the block are about."""
    token = _ASKED.set(asked)
    try:
        yield
    finally:
        _ASKED.reset(token)


def asked_now() -> Asked:
    """What the language model is being asked about; empty outside a request about items."""
    return _ASKED.get()
