"""What calls of a language model cost, and a budget that no call may exceed."""

from dataclasses import dataclass
from threading import Condition
from typing import Any

from dspy.utils.exceptions import LMError

from routedk.errors import RouteDKError


class BudgetError(RouteDKError, LMError):  # type: ignore[misc]  # DSPy is untyped here
    """A call was not made because it could have exceeded the budget.

    It is also one of DSPy's LM errors, so that ``dspy.LM`` passes it on unchanged.
    """


@dataclass(frozen=True, slots=True)
class Tally:
    """What calls came to.

    Args:
        calls: Calls that were answered.
        input_tokens: Tokens of their prompts.
        output_tokens: Tokens of their answers.
        cost: Their price in US dollars; None where the price of one is not known.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            None if self.cost is None or other.cost is None else self.cost + other.cost,
        )


class Budget:
    """What one run may spend, shared by the threads that ask.

    Args:
        max_tokens: Tokens read and written; None for no limit.
        max_cost: US dollars; None for no limit. Costs must then be known.
        spent: What earlier attempts of the run spent.
    """

    def __init__(self, max_tokens: int | None, max_cost: float | None, spent: Tally) -> None:
        self._max_tokens = max_tokens
        self._max_cost = max_cost
        self._spent = spent
        self._reserved: list[Tally] = []
        self._changed = Condition()

    def reserve(self, most: Tally) -> None:
        """Set aside the most that a call may cost, waiting for calls under way to leave room.

        Raises:
            BudgetError: There is no room for it even when nothing is under way.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(most))
            self._reserved.append(most)

    def settle(self, most: Tally, spent: Tally) -> None:
        """Free what `reserve` set aside, and count what the call cost."""
        with self._changed:
            self._reserved.remove(most)
            self._spent += spent
            self._changed.notify_all()

    def _has_room(self, most: Tally) -> bool:
        if excess := self._excess(self._spent + most):
            raise BudgetError(f"the budget is {excess} and run again: no answer is paid for twice)")
        return not self._excess(sum(self._reserved, self._spent + most))

    def _excess(self, total: Tally) -> str:
        """Which limit a total exceeds; empty where it exceeds none."""
        spent, cost, paid = self._spent.tokens, total.cost or 0.0, self._spent.cost or 0.0
        if self._max_tokens is not None and total.tokens > self._max_tokens:
            return (
                f"{self._max_tokens} tokens: {spent} are spent, and the next call may take "
                f"{total.tokens - spent} (raise max_tokens"
            )
        if self._max_cost is not None and cost > self._max_cost:
            return (
                f"{self._max_cost} dollars: {paid:.4f} are spent, and the next call may take "
                f"{cost - paid:.4f} (raise max_cost"
            )
        return ""


def price(model: str, input_tokens: int, output_tokens: int) -> float | None:
    """What a call costs in US dollars by LiteLLM's table; None for a model that is not in it.

    Args:
        model: LiteLLM's name of the model.
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
    """
    import litellm

    # Otherwise it prints advice for a name without a provider.
    litellm.suppress_debug_info = True
    try:
        read, written = litellm.cost_per_token(
            model=model, prompt_tokens=input_tokens, completion_tokens=output_tokens
        )
    except (litellm.exceptions.ModelNotMappedError, litellm.exceptions.BadRequestError):
        return None
    return float(read + written)


def price_of(lm: Any, input_tokens: int, output_tokens: int) -> float | None:
    """As `price`, for a ``dspy.LM``; None for a custom engine, whose name may be anything."""
    asked = getattr(lm.engine, "asked_lm", lm)
    return price(lm.model, input_tokens, output_tokens) if isinstance(asked.engine, str) else None
