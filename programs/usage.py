"""Counting the calls to a language model, and their tokens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import dspy

# More calls than one session needs.
_HISTORY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Calls and their tokens, as the language model reported them.

    Args:
        calls: Requests that were answered; several completions of one request count once.
        input_tokens: Tokens of their prompts.
        output_tokens: Tokens of the answers.
        unmetered: How many of them came without token counts, e.g. from DSPy's cache.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unmetered: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + theirs[name] for name in mine})


class Meter(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Stands among the calling modules, so that DSPy reports their calls to it."""

    @property
    def usage(self) -> Usage:
        """The calls so far."""
        return sum(map(_of_entry, self.history), Usage())


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the calls to any ``dspy.LM`` that are made within the block.

    Those of this thread, and of the threads that `call_all` starts from it. Blocks may be nested,
    and each counts its own.

    Yields:
        The meter; its ``usage`` can be read at any time.
    """
    meter = Meter()
    callers = [*(dspy.settings.caller_modules or []), meter]
    # Where history is off DSPy reports no calls to calling modules, and drops the oldest ones.
    size = max(_HISTORY, dspy.settings.max_history_size)
    with dspy.context(caller_modules=callers, disable_history=False, max_history_size=size):
        yield meter


def _of_entry(entry: Mapping[str, Any]) -> Usage:
    """One entry of DSPy's history."""
    given = entry["usage"] or {}
    read, written = given.get("prompt_tokens"), given.get("completion_tokens")
    return Usage(
        calls=1,
        input_tokens=read or 0,
        output_tokens=written or 0,
        unmetered=int(read is None or written is None),
    )
