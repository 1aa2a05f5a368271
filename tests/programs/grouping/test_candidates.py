"""Candidate groupings and their features."""

import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.programs.grouping.candidates import FEATURES, candidate_features, candidates

NAMES = (
    *("bundles", "items", "coverage", "whole", "logit_inside", "lowest_inside"),
    *("nearest_outsider", "highest_across", "highest_left", "likelihood", "expected_f1"),
    *("highest", "mean"),
)


def logits_of(*rows: list[float]) -> NDArray[np.float64]:
    return np.array(rows, dtype=np.float64)


# Items 0 and 1 belong together, 2 and 3 do, and nothing else.
TWO = logits_of([0, 3, -4, -5], [3, 0, -5, -4], [-4, -5, 0, 2], [-5, -4, 2, 0])


def test_candidates_are_cuts_and_choices_of_clusters() -> None:
    found = {frozenset(candidate) for candidate in candidates(TWO)}
    first, second = frozenset({0, 1}), frozenset({2, 3})
    assert found == {
        frozenset({first}),
        frozenset({second}),
        frozenset({first, second}),
        frozenset({first | second}),
    }


def test_a_long_session_has_few_candidates() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(300, 300))
    assert len(candidates(half + half.T)) <= 300


def test_features_of_a_candidate() -> None:
    (row,) = candidate_features(TWO, [(frozenset({0, 1}),)])
    assert len(row) == FEATURES
    told = dict(zip(NAMES, row, strict=True))
    likely = 1 / (1 + np.exp(-TWO[np.triu_indices(4, 1)]))
    assert told["bundles"] == 1
    assert told["items"] == 4
    assert told["coverage"] == 0.5
    assert told["whole"] == 0
    assert told["logit_inside"] == told["lowest_inside"] == 3
    assert told["nearest_outsider"] == -4.5
    assert told["highest_across"] == -4
    assert told["highest_left"] == 2
    assert told["expected_f1"] == pytest.approx(2 * likely[0] / (1 + likely.sum()))
    assert told["highest"] == 3
    assert told["mean"] == pytest.approx(TWO[np.triu_indices(4, 1)].mean())


def test_the_order_of_items_does_not_matter() -> None:
    places = np.array([2, 0, 3, 1])
    moved = TWO[np.ix_(places, places)]
    back = [tuple(frozenset(int(places[k]) for k in b) for b in c) for c in candidates(moved)]
    assert {frozenset(c) for c in back} == {frozenset(c) for c in candidates(TWO)}
    there = candidate_features(moved, [(frozenset({1, 3}), frozenset({0, 2}))])
    here = candidate_features(TWO, [(frozenset({0, 1}), frozenset({2, 3}))])
    np.testing.assert_allclose(there, here)
