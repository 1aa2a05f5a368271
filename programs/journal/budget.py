"""The cost of language model calls, and the error for a call that exceeds the budget."""

from dataclasses import dataclass
from typing import Any

from dspy.utils.exceptions import LMError

from routedk.errors import RouteDKError


class BudgetError(RouteDKError, LMError):  # type: ignore[misc]  # DSPy is untyped here
    """A call was not made because it could have exceeded the budget.

    It is also one of DSPy's LM errors, so ``dspy.LM`` passes it on unchanged.
    """


@dataclass(frozen=True, slots=True)
class Tally:
    """Number, tokens and cost of language model calls.

    Args:
        calls: Calls that were answered.
        input_tokens: Tokens of their prompts.
        output_tokens: Tokens of their answers.
        cost: Their price in US dollars; None if the price of any is unknown.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.input_tokens + self.output_tokens

    def __str__(self) -> str:
        """Tokens, and dollars if they are known."""
        return f"{self.tokens} tokens" + (
            "" if self.cost is None else f" ({self.cost:.4f} dollars)"
        )

    def __add__(self, other: "Tally") -> "Tally":
        """The sum of both."""
        return Tally(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            None if self.cost is None or other.cost is None else self.cost + other.cost,
        )


def price(model: str, input_tokens: int, output_tokens: int) -> float | None:
    """The cost of a call in US dollars by LiteLLM's price table; None for a model not in it.

    Args:
        model: LiteLLM's name of the model.
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
    """
    import litellm

    # Otherwise LiteLLM prints advice for a name without a provider.
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
