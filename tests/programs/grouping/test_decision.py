"""Choosing a grouping, and how sure it is."""

import numpy as np
import pytest

from routedk.programs.grouping.decision import Decision, Scored, fit_decision


def sessions(count: int, *, empty: int, noise: float, seed: int = 0) -> list[Scored]:
    """Sessions whose logits are high inside their label's bundles, and low elsewhere."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        size = int(rng.integers(3, 7))
        label = [] if number < empty else [frozenset({0, 1})]
        if size > 4 and label:
            label.append(frozenset({2, 3}))
        logits = rng.normal(-3, noise, size=(size, size))
        for bundle in map(sorted, label):
            logits[np.ix_(bundle, bundle)] += 5
        made.append(Scored((logits + logits.T) / 2, label))
    return made


@pytest.fixture(scope="module")
def decision() -> Decision:
    return fit_decision(sessions(120, empty=30, noise=1.0))


def test_it_states_the_bundles(decision: Decision) -> None:
    for one in sessions(30, empty=0, noise=0.5, seed=1):
        assert set(decision.choose(one.logits).bundles) == set(one.label)


def test_it_leaves_sessions_empty_where_nothing_belongs_together(decision: Decision) -> None:
    choices = [decision.choose(one.logits) for one in sessions(30, empty=30, noise=0.5, seed=2)]
    assert sum(not choice.bundles for choice in choices) >= 28
    assert all(0 <= choice.confidence <= 1 for choice in choices)


def test_leaving_sessions_empty_costs_no_more_than_the_loss() -> None:
    noisy = sessions(200, empty=60, noise=3.0, seed=3)
    for loss in (0.0, 0.05, 0.3):
        decision = fit_decision(noisy, loss=loss)
        bundled = [one for one in noisy if one.label]
        left = sum(not decision.choose(one.logits).bundles for one in bundled)
        assert left <= (loss + 0.05) * len(bundled) / 0.4


def test_without_an_empty_label_no_session_is_left_empty() -> None:
    decision = fit_decision(sessions(40, empty=0, noise=1.0))
    assert all(
        decision.choose(one.logits).bundles for one in sessions(20, empty=20, noise=1.0, seed=4)
    )


def test_a_doubtful_bundle_has_less_confidence(decision: Decision) -> None:
    sure, doubtful = (
        decision.choose(np.array([[0, x, -4], [x, 0, -4], [-4, -4, 0]], dtype=float))
        for x in (4.0, 0.5)
    )
    assert sure.bundle_confidence[0] > doubtful.bundle_confidence[0]
    assert sure.confidence > doubtful.confidence


def test_one_item_is_no_bundle(decision: Decision) -> None:
    assert decision.choose(np.zeros((1, 1))).bundles == ()
