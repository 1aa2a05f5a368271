"""The n completions of one request, asked for together.

DSPy asks an engine for the n completions of a request one after the other and does not say how
many there will be. A callback at its door does, for the calls below it.
"""

from collections import deque
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from dspy.utils.callback import BaseCallback


@dataclass
class Draws:
    """The completions that one call of a ``dspy.LM`` asks for.

    Args:
        n: How many.

    Attributes:
        given: How many were asked for so far.
        waiting: Jobs with their futures that are under way, but not yet asked for.
    """

    n: int
    given: int = 0
    waiting: "deque[tuple[Any, Future[Any]]]" = field(default_factory=deque)

    def give_up(self) -> None:
        """Nobody asks for the rest any more."""
        for job, future in self.waiting:
            job.given_up.set()
            future.cancel()
        self.waiting.clear()


_DRAWS: ContextVar[Draws | None] = ContextVar("draws", default=None)


def current_draws() -> Draws:
    """The draws of the call under way; one alone where nothing is known of it."""
    return _DRAWS.get() or Draws(1)


class AnnounceDraws(BaseCallback):  # type: ignore[misc]  # DSPy is untyped here
    """Tells the engine below how many completions a call of its ``dspy.LM`` is for."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note the number."""
        n = {**instance.kwargs, **(inputs.get("kwargs") or {})}.get("n")
        _DRAWS.set(Draws(n) if isinstance(n, int) and n > 1 else None)

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Forget it, and give up what nobody came for."""
        draws = _DRAWS.get()
        if draws is not None:
            draws.give_up()
            _DRAWS.set(None)
