"""Tallies, prices, and a budget that threads share."""

import threading
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest

from routedk.programs.journal.budget import Budget, BudgetError, Tally, price, price_of
from tests.scripted import scripted_lm


def test_tallies_add_up() -> None:
    both = Tally(1, 10, 5, 0.5) + Tally(2, 20, 10, 0.25)
    assert both == Tally(3, 30, 15, 0.75)
    assert both.tokens == 45
    assert (both + Tally(1, 1, 1, None)).cost is None


def test_a_budget_is_never_exceeded() -> None:
    budget = Budget(1000, None, Tally(1, 100, 0))
    spent, most = [100], Tally(1, 7, 0)
    lock = threading.Lock()

    def work(k: int) -> bool:
        try:
            budget.reserve(most)
        except BudgetError:
            return False
        with lock:
            spent[0] += k % 8
        budget.settle(most, Tally(1, k % 8, 0))
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(500)))
    assert not all(done)
    assert 1000 - 7 < spent[0] <= 1000


def test_no_limit_is_no_limit() -> None:
    budget = Budget(None, None, Tally(9, 10**9, 10**9, None))
    budget.reserve(Tally(1, 10**9, 0, None))
    budget.reserve(Tally(1, 10**9, 0, None))


def test_what_is_exceeded_is_told() -> None:
    with pytest.raises(BudgetError) as caught:
        Budget(100, None, Tally(1, 60, 10)).reserve(Tally(1, 30, 10))
    assert str(caught.value) == (
        "the budget is 100 tokens: 70 are spent, and the next call may take 40 (raise max_tokens "
        "and run again: no answer is paid for twice)"
    )
    with pytest.raises(BudgetError, match=r"is 0.5 dollars: 0.4000 are spent.* take 0.2000 \(rais"):
        Budget(None, 0.5, Tally(1, 60, 10, 0.4)).reserve(Tally(1, 30, 10, 0.2))


def test_prices_are_litellms() -> None:
    # 0.15 and 0.60 dollars a million tokens.
    assert price("openai/gpt-4o-mini", 10, 100) == pytest.approx(10 * 0.15e-6 + 100 * 0.6e-6)
    assert price("openai/nameless", 1, 1) is None
    assert price("nameless", 1, 1) is None
    assert price_of(dspy.LM("openai/gpt-4o-mini"), 10, 0) == pytest.approx(1.5e-6)
    lm, _ = scripted_lm(lambda messages: "")
    assert price_of(lm.copy(model="openai/gpt-4o-mini"), 10, 0) is None
