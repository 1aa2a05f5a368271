"""What a language model's calls may cost: prices, a budget, and what calls will come to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Condition

from dspy.utils.exceptions import LMError

from routedk.errors import RouteDKError, SettingError
from routedk.programs.journal.journal import Tally
from routedk.programs.prompting.layout import Message

# OpenAI's rule of thumb for English; used where the model's tokenizer is not known.
_CHARACTERS_PER_TOKEN = 4


class BudgetError(RouteDKError, LMError):  # type: ignore[misc]
    """A call was not made, since it could have exceeded the budget.

    It is one of DSPy's LM errors, too, so that it passes through ``dspy.LM`` as it is.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent on a journal's calls in all, earlier runs included.

    Args:
        max_tokens: Tokens read and written, at least 1; None for any.
        max_cost: US dollars, above 0; None for any.

    Raises:
        SettingError: A value is out of its range.
    """

    max_tokens: int | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SettingError(f"max_tokens={self.max_tokens}: at least 1, or None for any")
        if self.max_cost is not None and not self.max_cost > 0:
            raise SettingError(f"max_cost={self.max_cost}: above 0, or None for any")


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens and US dollars."""

    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.cost + other.cost)


class Purse:
    """A budget in use by many threads: what is spent, and what calls under way may come to.

    Args:
        budget: The limits.
        spent: What was spent before.
    """

    def __init__(self, budget: Budget, spent: Amount) -> None:
        self._budget = budget
        self._spent = spent
        self._held: list[Amount] = []
        self._changed = Condition()

    def take(self, most: Amount) -> None:
        """Hold what a call may come to, as soon as calls under way leave room for it.

        Args:
            most: The most that the call may come to.

        Raises:
            BudgetError: There is no room for it even when nothing is under way.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.try_take(most))

    def try_take(self, most: Amount) -> bool:
        """The same without waiting; False where calls under way must end first.

        Raises:
            BudgetError: As `take`.
        """
        with self._changed:
            self._refuse_beyond(self._spent + most)
            if self._held and not self._fits(sum(self._held, self._spent + most)):
                return False
            self._held.append(most)
            return True

    def settle(self, most: Amount, spent: Amount) -> None:
        """Give back what `take` held, and count what the call came to."""
        with self._changed:
            self._held.remove(most)
            self._spent += spent
            self._changed.notify_all()

    def _fits(self, amount: Amount) -> bool:
        limit = self._budget
        return (limit.max_tokens is None or amount.tokens <= limit.max_tokens) and (
            limit.max_cost is None or amount.cost <= limit.max_cost
        )

    def _refuse_beyond(self, amount: Amount) -> None:
        if self._fits(amount):
            return
        limit, spent = self._budget, self._spent
        if limit.max_tokens is not None and amount.tokens > limit.max_tokens:
            state = f"{limit.max_tokens} tokens: {spent.tokens} are spent, and the next call may"
            state += f" take {amount.tokens - spent.tokens} (raise --max-tokens"
        else:
            state = f"{limit.max_cost} dollars: {spent.cost:.4f} are spent, and the next call may"
            state += f" take {amount.cost - spent.cost:.4f} (raise --max-cost"
        raise BudgetError(f"the budget is {state} and run again: no answer is paid for twice)")


def price(model: str, input_tokens: int, output_tokens: int) -> float | None:
    """What a call costs in US dollars by LiteLLM's table; None for a model that is not in it.

    Args:
        model: LiteLLM's name of the model.
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
    """
    import litellm

    # Else it prints advice for a name without a provider.
    litellm.suppress_debug_info = True
    try:
        read, written = litellm.cost_per_token(
            model=model, prompt_tokens=input_tokens, completion_tokens=output_tokens
        )
    except (litellm.exceptions.ModelNotMappedError, litellm.exceptions.BadRequestError):
        return None
    return float(read + written)


def estimate_calls(
    model: str, requests: Iterable[Sequence[Message]], *, output_tokens: int
) -> Tally:
    """What calls will come to, without making them.

    Prompts are counted by LiteLLM where it has a price for the model, else at four characters
    a token.

    Args:
        model: LiteLLM's name of the model.
        requests: The messages of each call.
        output_tokens: Tokens of an answer: the typical size, or ``max_tokens`` for the most.
    """
    known = price(model, 1, 1) is not None
    calls = read = 0
    for messages in requests:
        calls += 1
        read += _prompt_tokens(model, messages, known)
    written = calls * output_tokens
    cost = price(model, read, written)
    return Tally(
        calls=calls,
        input_tokens=read,
        output_tokens=written,
        cost=cost or 0.0,
        unpriced=0 if known else calls,
    )


def _prompt_tokens(model: str, messages: Sequence[Message], known: bool) -> int:
    if not known:
        characters = sum(len(message["content"]) for message in messages)
        return -(-characters // _CHARACTERS_PER_TOKEN)
    import litellm

    return int(litellm.token_counter(model=model, messages=list(messages)))
