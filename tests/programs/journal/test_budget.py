"""Tallies and prices."""

import dspy
import pytest

from routedk.programs.journal.budget import Tally, price, price_of
from tests.scripted import scripted_lm


def test_tallies_add_up() -> None:
    both = Tally(1, 10, 5, 0.5) + Tally(2, 20, 10, 0.25)
    assert both == Tally(3, 30, 15, 0.75)
    assert str(both) == "45 tokens (0.7500 dollars)"
    unpriced = both + Tally(1, 1, 1, None)
    assert (unpriced.cost, str(unpriced)) == (None, "47 tokens")


def test_prices_are_litellms() -> None:
    # 0.15 and 0.60 dollars a million tokens.
    assert price("openai/gpt-4o-mini", 10, 100) == pytest.approx(10 * 0.15e-6 + 100 * 0.6e-6)
    assert price("openai/nameless", 1, 1) is None
    assert price("nameless", 1, 1) is None
    assert price_of(dspy.LM("openai/gpt-4o-mini"), 10, 0) == pytest.approx(1.5e-6)
    lm, _ = scripted_lm(lambda messages: "")
    assert price_of(lm.copy(model="openai/gpt-4o-mini"), 10, 0) is None
