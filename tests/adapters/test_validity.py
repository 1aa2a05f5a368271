"""Answers of random students are valid, in the short form of `benchmarks.validity`."""

import random
from pathlib import Path
from typing import Any

import pytest

from routedk.adapters.engine.grammars import AnswerGrammar


@pytest.fixture
def validity(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import validity

    return validity


def test_every_answer_of_random_students_is_valid(validity: Any) -> None:
    counts = validity.run(300)
    assert counts["valid"] == 300, counts
    assert counts["of them no bundle"] > 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1 4", "an item that is not there"),
        ("1 1", "less than two distinct items, or one twice"),
        ("2", "less than two distinct items, or one twice"),
        ("1 2\n2 1 | tea", "a bundle twice"),
        ("1 2 | ", "an intent that is empty or too long"),
        ("1 2 | " + "x" * 41, "an intent that is empty or too long"),
        ("tea", "a line that is no bundle"),
        ("1 2\n", "a line that is no bundle"),
        ("", "a line that is no bundle"),
        ("Thought: tea\nnone", "a line that is no bundle"),
    ],
)
def test_the_check_sees_faults(validity: Any, text: str, fault: str) -> None:
    assert fault in validity.faults(text, 3)


@pytest.mark.parametrize("text", ["none", "1 2", "1 2 3 | tea\n1 2"])
def test_the_check_sees_no_fault_in_answers(validity: Any, text: str) -> None:
    assert validity.faults(text, 3) == []
    assert validity.faults(f"Thought: why\n{text}", 3, thinks=True) == []


def test_an_unfinished_answer_is_whole_within_its_ending() -> None:
    """Ending as soon as it may, whatever else is chosen, one character at a time."""
    chance = random.Random(0)
    for _ in range(100):
        grammar = AnswerGrammar(chance.choice([2, 3, 10, 20]))
        pieces = "0123456789 |\nxnoe"
        for _ in range(chance.randrange(60)):
            fits = [piece for piece in pieces if grammar.feed(piece) is not None]
            if not fits:
                break
            after = grammar.feed(chance.choice(fits))
            assert after is not None
            grammar = after
        steps = 0
        while not grammar.complete:
            after = grammar.feed(chance.choice([p for p in pieces if grammar.feed(p) is not None]))
            assert after is not None
            grammar, steps = after, steps + 1
        assert steps < grammar.ending
