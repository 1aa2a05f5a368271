from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.eval import EvaluateConfig, System, evaluate
from routedk.types import Answer, Bundle, Item, Session

ITEMS = tuple(Item(name, name) for name in "abcd")
SESSIONS = [
    Session("gold", ITEMS, (Bundle(("a", "b")),)),
    Session("other", ITEMS, (Bundle(("c", "d")),)),
    *(Session(f"empty {number}", ITEMS, ()) for number in range(4)),
    Session("not annotated", ITEMS),
]


def answer(name: str, *bundles: tuple[str, float | None]) -> Answer:
    made = (Bundle(tuple(items), confidence=confidence) for items, confidence in bundles)
    return Answer(name, tuple(made))


ANSWERS = [
    answer("gold", ("ab", 0.9), ("cd", 0.3)),
    answer("other", ("cd", 0.5)),
    answer("empty 0"),
    answer("empty 1", ("ab", 0.4)),
    replace(answer("empty 2"), error="the answer is empty"),
    answer("not annotated", ("ab", 1.0)),
]


def scored(sessions: list[Session], answers: list[Answer]) -> System:
    system = evaluate(sessions, answers, EvaluateConfig(intents=False, resamples=200)).system
    assert system is not None
    return system


def test_empty_sessions_have_figures_of_their_own() -> None:
    system = scored(SESSIONS, ANSWERS)
    assert system.empties is not None
    # One says so; one has a bundle, one could not be read, one has no answer.
    assert system.empties.left_empty.value == pytest.approx(1 / 4)
    assert system.empties.f1_all.value == pytest.approx((2 / 3 + 1 + 1) / 6)
    assert (system.counts.sessions, system.counts.empty_sessions) == (2, 4)
    assert system.to_dict()["empties"]["left_empty"]["value"] == pytest.approx(1 / 4)
    # The main figures are those of the sessions with gold.
    assert system.results == scored(SESSIONS[:2], ANSWERS).results
    assert scored(SESSIONS[:2], ANSWERS).empties is None


def test_the_curve_of_confidences() -> None:
    rows = {row.threshold: row for row in scored(SESSIONS, ANSWERS).empties_curve}
    found = {at: (rows[at].left_empty, round(rows[at].f1, 3)) for at in (0, 0.35, 0.45, 0.6, 1)}
    assert found == {
        0: (1 / 4, 0.833),
        0.35: (1 / 4, 1.0),
        0.45: (2 / 4, 1.0),
        0.6: (2 / 4, 0.5),
        1: (2 / 4, 0.0),
    }
    bare = [answer("gold", ("ab", None)), answer("empty 0")]
    assert scored(SESSIONS, bare).empties_curve == ()


@given(st.lists(st.tuples(st.sampled_from(["ab", "cd", "abc"]), st.floats(0, 1)), max_size=3))
def test_a_higher_threshold_never_leaves_fewer_empty(bundles: list[tuple[str, float]]) -> None:
    answers = [answer("gold", ("ab", 1.0)), answer("empty 0", *bundles)]
    shares = [row.left_empty for row in scored(SESSIONS, answers).empties_curve]
    assert shares == sorted(shares)
