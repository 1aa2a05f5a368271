"""Count the calls to a language model and their tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

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
        unmetered: Calls without token counts, e.g. answered from DSPy's cache.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unmetered: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """The sum of both."""
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + theirs[name] for name in mine})


class Meter(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Joins the calling modules, so that DSPy reports LM calls to it."""

    @property
    def usage(self) -> Usage:
        """The calls so far."""
        given = [entry["usage"] or {} for entry in self.history]
        counts = [(one.get("prompt_tokens"), one.get("completion_tokens")) for one in given]
        return Usage(
            calls=len(counts),
            input_tokens=sum(read or 0 for read, _ in counts),
            output_tokens=sum(written or 0 for _, written in counts),
            unmetered=sum(None in pair for pair in counts),
        )


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the calls to any ``dspy.LM`` that are made within the block.

    This covers the current thread and the threads that `call_all` starts from it. Blocks may be
    nested, and each counts its own calls.

    Yields:
        The meter; its ``usage`` can be read at any time.
    """
    meter = Meter()
    callers = [*(dspy.settings.caller_modules or []), meter]
    # DSPy reports calls to modules only with history on, and drops the oldest beyond its size.
    size = max(_HISTORY, dspy.settings.max_history_size)
    with dspy.context(caller_modules=callers, disable_history=False, max_history_size=size):
        yield meter
