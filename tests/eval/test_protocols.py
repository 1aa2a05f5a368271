"""Hand-computed tables: every row was worked out on paper."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.eval import matched_f1
from routedk.eval.protocols import (
    UNCOUNTED,
    Score,
    aicl,
    best_pairs,
    distinct,
    jaccard,
    matched,
    matched_pairs,
    strict,
)
from routedk.eval.scoring import METRICS, PROTOCOLS


def bundles(text: str) -> list[frozenset[str]]:
    """`"ab cd"` is two bundles of two items."""
    return [frozenset(word) for word in text.split()]


answers = st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=2), max_size=5)


@pytest.mark.parametrize(
    ("gold", "predicted", "precision", "recall", "f1", "exact"),
    [
        ("ab", "ab", 1, 1, 1, 1),
        ("ab cd", "cd ab", 1, 1, 1, 1),
        ("ab", "", 0, 0, 0, 0),
        ("", "ab", 0, 0, 0, 0),
        ("", "", 1, 1, 1, 1),
        ("ab", "cd", 0, 0, 0, 0),
        # The whole session: one Jaccard of 2/5 over one prediction and two gold bundles.
        ("ab cd", "abcde", 2 / 5, 1 / 5, 4 / 15, 0),
        # Repeats on either side count once.
        ("ab", "ab ab", 1, 1, 1, 1),
        ("ab ab", "ab", 1, 1, 1, 1),
        # One-to-one: the second half of a gold bundle finds it taken.
        ("abcd", "ab cd", 1 / 4, 1 / 2, 1 / 3, 0),
        # Nested gold: abc takes itself, ab is missed.
        ("ab abc", "abc", 1, 1 / 2, 2 / 3, 0),
        # The best sum, 1/2 + 2/3, is not reached by taking the best pair first (3/4 + 0).
        ("abc ad", "abcd bc", 7 / 12, 7 / 12, 7 / 12, 0),
        # One of two is exact: the session is not.
        ("ab cd", "ab ce", (1 + 1 / 3) / 2, (1 + 1 / 3) / 2, (1 + 1 / 3) / 2, 0),
    ],
)
def test_matched(
    gold: str, predicted: str, precision: float, recall: float, f1: float, exact: float
) -> None:
    scores = matched(bundles(gold), bundles(predicted))
    expected = dict(zip(METRICS["matched"], (precision, recall, f1, exact), strict=True))
    assert {name: score.value for name, score in scores.items()} == pytest.approx(expected)
    assert {score.weight for score in scores.values()} == {1.0}
    assert matched_f1(bundles(gold), bundles(predicted)) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("gold", "predicted", "precision", "recall", "coverage"),
    [
        ("ab", "ab", 1, 1, 1),
        ("ab", "", 0, 0, 0),
        ("", "ab", 0, 0, 0),
        ("", "", 1, 1, 1),
        ("ab cd", "abcde", 0, 0, 0),
        ("abcd", "ab", 1, 1, 1 / 2),
        # Two hits in one gold bundle: it counts once, the larger one is the hit.
        ("abcd", "ab acd", 1 / 2, 1, 3 / 4),
        ("abcd", "ab ab", 1, 1, 1 / 2),
        ("abc de", "ab", 1, 1 / 2, 2 / 3),
        # A prediction inside two gold bundles hits one of them, the smaller.
        ("abc abd", "ab", 1, 1 / 2, 2 / 3),
        ("abcd abe", "ab", 1, 1 / 2, 2 / 3),
        ("abc abcd", "abc ab", 1, 1, (1 + 1 / 2) / 2),
        # Two hits of 2/5 and 4/14 come before one of 4/5.
        ("abcde abcdfghijklmno", "abcd ae", 1, 1, (2 / 5 + 4 / 14) / 2),
        ("ab ac bc", "ab ac bc", 1, 1, 1),
    ],
)
def test_strict(
    gold: str, predicted: str, precision: float, recall: float, coverage: float
) -> None:
    scores = strict(bundles(gold), bundles(predicted))
    expected = dict(zip(METRICS["strict"], (precision, recall, coverage), strict=True))
    assert {name: score.value for name, score in scores.items()} == pytest.approx(expected)
    assert {score.weight for score in scores.values()} == {1.0}


@pytest.mark.parametrize(
    ("gold", "predicted", "precision", "recall", "coverage"),
    [
        ("ab", "ab", Score(1), Score(1), Score(1, 1)),
        # Unanswered sessions leave the denominator, missed ones only that of coverage.
        ("ab", "", UNCOUNTED, UNCOUNTED, UNCOUNTED),
        ("", "ab", UNCOUNTED, UNCOUNTED, UNCOUNTED),
        ("ab cd", "abcde", Score(0), Score(0), UNCOUNTED),
        # Every hit counts: three pairs of one gold bundle are a recall of 3.
        ("abc", "ab ac bc", Score(1), Score(3), Score(2 / 3, 3)),
        ("ab", "ab ab", Score(1), Score(2), Score(1, 2)),
        ("abcd", "ab ae", Score(1 / 2), Score(1), Score(1 / 2, 1)),
        # Coverage is measured against the first gold bundle that holds the prediction.
        ("abcd abe", "ab", Score(1), Score(1 / 2), Score(1 / 2, 1)),
    ],
)
def test_aicl(gold: str, predicted: str, precision: Score, recall: Score, coverage: Score) -> None:
    assert aicl(bundles(gold), bundles(predicted)) == {
        "precision": pytest.approx(precision),
        "recall": pytest.approx(recall),
        "coverage": pytest.approx(coverage),
    }


@given(gold=answers, predicted=answers)
def test_matched_agrees_with_trying_every_assignment(
    gold: list[frozenset[str]], predicted: list[frozenset[str]]
) -> None:
    few, many = sorted((distinct(gold), distinct(predicted)), key=len)
    best = max(sum(map(jaccard, few, chosen)) for chosen in itertools.permutations(many, len(few)))
    assert sum(weight for *_, weight in matched_pairs(few, many)) == pytest.approx(best)


@given(gold=answers, predicted=answers)
def test_every_protocol_keeps_its_contract(
    gold: list[frozenset[str]], predicted: list[frozenset[str]]
) -> None:
    for name, protocol in PROTOCOLS.items():
        scores = protocol(gold, predicted)
        assert tuple(scores) == METRICS[name]
        for metric, (value, weight) in scores.items():
            assert value >= 0
            assert weight >= 0
            assert value <= 1 + 1e-12 or (name, metric) == ("aicl", "recall")


@given(gold=answers, predicted=answers)
def test_order_and_repeats_do_not_matter_to_matched_and_strict(
    gold: list[frozenset[str]], predicted: list[frozenset[str]]
) -> None:
    for protocol in (matched, strict):
        turned = protocol(gold[::-1], [*predicted[::-1], *predicted])
        assert {name: pytest.approx(score) for name, score in turned.items()} == protocol(
            gold, predicted
        )


def test_pairs_of_nothing() -> None:
    assert best_pairs([]) == []
    assert best_pairs([[], []]) == []
