"""What a program's calls to its language model cost: calls, tokens, answers from the cache."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy

# More calls than one session needs.
_HISTORY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Calls and their tokens, as the language model reported them.

    DSPy reports no usage for an answer from its cache. Here such an answer counts with the tokens
    that it cost when it was made.

    Args:
        calls: Requests that were answered, those from the cache included; several completions of
            one request count once.
        input_tokens: Tokens of their prompts.
        output_tokens: Tokens of the answers.
        cached: How many of them were answered from the cache.
        unmetered: How many of them were answered without token counts.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached: int = 0
    unmetered: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached=self.cached + other.cached,
            unmetered=self.unmetered + other.unmetered,
        )


class _Counter(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Stands among the calling modules, so that DSPy tells it of their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = Usage()


class Meter:
    """What was asked for within one `metered` block, so far."""

    def __init__(self) -> None:
        """Nothing asked yet."""
        self._module = _Counter()

    @property
    def usage(self) -> Usage:
        """The calls so far."""
        return sum(map(_of_entry, self._module.history), self._module.beside)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the calls of this thread."""
        callers = [*(dspy.settings.caller_modules or []), self._module]
        # DSPy tells each calling module of its calls, unless history is off or too short.
        size = max(_HISTORY, dspy.settings.max_history_size)
        with dspy.context(caller_modules=callers, disable_history=False, max_history_size=size):
            yield


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the calls to any ``dspy.LM`` that this thread makes within the block.

    Calls of other threads are not counted; blocks may be nested, and each counts its own.

    Yields:
        The meter; its ``usage`` can be read at any time.
    """
    meter = Meter()
    with meter.running():
        yield meter


def spend(usage: Usage) -> None:
    """Let this thread's meters count what was asked of a student beside DSPy's calls.

    Args:
        usage: Its cost, e.g. that of likelihoods.
    """
    for module in dspy.settings.caller_modules or []:
        if isinstance(module, _Counter):
            module.beside += usage


def _of_entry(entry: Mapping[str, Any]) -> Usage:
    """One entry of DSPy's history; a cache hit has no usage of its own, but its response has."""
    response, given = entry["response"], entry["usage"]
    if given:
        counts = [(given.get("prompt_tokens"), given.get("completion_tokens"))]
    else:
        made = response if isinstance(response, tuple) else (response,)
        kept = [getattr(one, "usage", None) for one in made]
        counts = [
            (getattr(one, "input_tokens", None), getattr(one, "output_tokens", None))
            for one in kept
        ]
    known = all(tokens is not None for pair in counts for tokens in pair)
    return Usage(
        calls=1,
        input_tokens=sum(read or 0 for read, _ in counts),
        output_tokens=sum(written or 0 for _, written in counts),
        cached=int(not given and (known or bool(getattr(response, "cache_hit", False)))),
        unmetered=int(not known),
    )
