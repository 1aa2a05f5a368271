"""A journaled language model exceeds no budget, and says what was spent."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy._vendor.lm15.serde import request_to_dict
from dspy.lm15 import (
    Config,
    InvalidRequestError,
    Message,
    Request,
)

from routedk.errors import DataError, SettingError
from routedk.programs.journal.budget import Amount, Budget, BudgetError, Purse, estimate_calls
from routedk.programs.journal.journal import Tally
from routedk.programs.journal.journaled_lm import JournaledLM
from tests.scripted import scripted_lm

from .journaled import Gate, Open, echo


def most_of(lm: Any) -> int:
    """What a budget holds for "tea 0?": the question's bytes and ``max_tokens``."""
    limit = lm.kwargs["max_tokens"]
    request = Request(
        model=lm.model, messages=(Message.user("tea 0?"),), config=Config(max_tokens=limit)
    )
    return len(json.dumps(request_to_dict(request))) + limit


def test_a_budget_holds_what_calls_under_way_may_come_to(opened: Open) -> None:
    gate = Gate()
    lm = gate.lm(max_tokens=50)
    size = most_of(lm)
    journaled = opened(lm, budget=Budget(max_tokens=2 * size + 10))
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(journaled.lm, f"tea {k}?") for k in range(3)]
        assert gate.arrived.acquire(timeout=30)
        assert gate.arrived.acquire(timeout=30)
        # The third waits: the two under way might leave no room for it.
        assert not gate.arrived.acquire(timeout=0.2)
        gate.go.set()
        assert sorted(one.result()[0] for one in asked) == [f"re: tea {k}?" for k in range(3)]
    assert journaled.spent.run.tokens == 45


def test_a_used_up_budget_stops_before_the_call_and_keeps_what_is_under_way(
    opened: Open, path: Path
) -> None:
    gate = Gate(usage=(100, 50))
    lm = gate.lm(max_tokens=50)
    size = most_of(lm)
    journaled = opened(lm, budget=Budget(max_tokens=size + 149))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(journaled.lm, "tea 0?")
        assert gate.arrived.acquire(timeout=30)
        gate.go.set()
        assert first.result() == ["re: tea 0?"]
    with pytest.raises(BudgetError) as caught:
        journaled.lm("tea 1?")
    assert str(caught.value) == (
        f"the budget is {size + 149} tokens: 150 are spent, and the next call may take {size} "
        "(raise --max-tokens and run again: no answer is paid for twice)"
    )
    assert gate.calls == 1
    # What is in the journal costs nothing.
    assert journaled.lm("tea 0?") == ["re: tea 0?"]
    # A new run counts what the earlier one spent; a larger budget goes on.
    with pytest.raises(BudgetError):
        opened(lm, budget=Budget(max_tokens=size + 149)).lm("tea 1?")
    assert opened(lm, budget=Budget(max_tokens=size + 150)).lm("tea 1?") == ["re: tea 1?"]
    assert len(path.read_text().splitlines()) == 2


def test_a_failed_call_gives_its_share_of_the_budget_back(opened: Open) -> None:
    failures = [True]

    def script(messages: list[dict[str, str]]) -> str:
        if failures:
            failures.clear()
            raise InvalidRequestError("no")
        return "yes"

    lm, _ = scripted_lm(script)
    journaled = opened(lm.copy(max_tokens=5), budget=Budget(max_tokens=200))
    with pytest.raises(dspy.utils.exceptions.LMInvalidRequestError):
        journaled.lm("tea?")
    assert journaled.lm("tea?") == ["yes"]


def test_a_budget_needs_max_tokens(opened: Open, path: Path) -> None:
    lm, _ = echo()
    with pytest.raises(SettingError, match="a budget needs a limit on answers: give"):
        opened(lm, budget=Budget(max_tokens=100))
    assert not path.exists()
    # The refusal leaves nothing locked.
    journaled = opened(lm.copy(max_tokens=5), budget=Budget(max_tokens=100))
    with pytest.raises(BudgetError, match="a budget needs max_tokens on every call"):
        journaled.lm("tea?", max_tokens=None)


def test_a_cost_limit_needs_a_known_price(opened: Open, path: Path) -> None:
    lm, _ = echo()
    budget = Budget(max_cost=1.0)
    message = "the price of local/scripted is not known: limit it by --max-tokens instead"
    with pytest.raises(SettingError, match=message):
        opened(lm.copy(max_tokens=5), budget=budget)
    with pytest.raises(SettingError, match="the price of openai/nameless is not known"):
        opened(dspy.LM("openai/nameless", max_tokens=5), budget=budget)
    opened(lm).lm("tea?")
    with pytest.raises(SettingError, match=r"the price of calls in .*journal.jsonl is not known"):
        opened(dspy.LM("openai/gpt-4o-mini", max_tokens=5), budget=budget)


def test_cost_is_counted_and_limited(opened: Open) -> None:
    lm, _ = echo()
    # 0.15 and 0.60 dollars a million tokens.
    priced = dspy.LM("openai/gpt-4o-mini", max_tokens=1000)

    def open_priced(max_cost: float) -> JournaledLM:
        journaled = opened(priced, budget=Budget(max_cost=max_cost))
        engine = journaled.lm.engine
        engine._inner = lm.copy(model="openai/gpt-4o-mini")
        return journaled

    journaled = open_priced(1.0)
    journaled.lm("tea?")
    assert journaled.spent.run.cost == pytest.approx(0.75e-6)
    # A call may come to 1000 tokens of answer, 0.0006 dollars, and its prompt.
    with pytest.raises(BudgetError, match=r"the budget is 0.0006 dollars: 0.0000 are spent, and"):
        open_priced(0.0006).lm("mugs?")
    open_priced(0.0007).lm("mugs?")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0: at least 1, or None for any"),
        ({"max_cost": 0.0}, "max_cost=0.0: above 0, or None for any"),
        ({"max_cost": float("nan")}, "max_cost=nan: above 0"),
    ],
)
def test_budgets_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Budget(**options)


def test_a_purse_never_exceeds_its_budget() -> None:
    purse = Purse(Budget(max_tokens=1000), Amount(100))
    spent, most = [100], Amount(7)
    lock = threading.Lock()

    def work(k: int) -> bool:
        try:
            purse.take(most)
        except BudgetError:
            return False
        with lock:
            spent[0] += k % 8
        purse.settle(most, Amount(k % 8))
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(500)))
    assert not all(done)
    assert 1000 - 7 < spent[0] <= 1000


def test_estimates_say_what_they_know() -> None:
    asked = [[{"role": "user", "content": "a" * 9}], [{"role": "user", "content": "b" * 8}]]
    assert estimate_calls("openai/nameless", asked, output_tokens=100) == Tally(
        calls=2, input_tokens=5, output_tokens=200, cost=0.0, unpriced=2
    )
    known = estimate_calls("openai/gpt-4o-mini", asked, output_tokens=100)
    assert (known.calls, known.output_tokens, known.unpriced) == (2, 200, 0)
    assert known.cost == pytest.approx(known.input_tokens * 0.15e-6 + 200 * 0.6e-6)


def test_the_command_line_shows_our_own_errors_as_they_are(opened: Open) -> None:
    from routedk.cli.lm import lm_errors

    lm, _ = echo()
    journaled = opened(lm.copy(max_tokens=5), budget=Budget(max_tokens=10))
    with pytest.raises(BudgetError, match=r"^the budget is 10 tokens"), lm_errors():
        journaled.lm("tea?")

    def script(messages: list[dict[str, str]]) -> str:
        raise DataError("cannot write: No space left on device", path="journal.jsonl")

    lm, _ = scripted_lm(script)
    with pytest.raises(DataError, match=r"^journal.jsonl: cannot write: No space"), lm_errors():
        opened(lm).lm("tea?")
