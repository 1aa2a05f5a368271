from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.eval import cascade, reliability, session_confidence
from routedk.types import Answer, Bundle, Item, Session

ITEMS = tuple(Item(name, name) for name in "abcd")
SESSIONS = [
    Session("1", ITEMS, (Bundle(("a", "b")),)),
    Session("2", ITEMS, (Bundle(("a", "b", "c", "d")),)),
    Session("3", ITEMS, (Bundle(("c", "d")),)),
]


def answer(name: str, *bundles: tuple[str, float | None], sure: float | None = None) -> Answer:
    made = (Bundle(tuple(items), confidence=confidence) for items, confidence in bundles)
    return Answer(name, tuple(made), confidence=sure)


ANSWERS = [
    answer("1", ("ab", 0.95), ("cd", 0.9)),
    answer("2", ("ab", 0.25)),
    answer("3", sure=0.6),
]
TEACHER = [answer(session.id, ("abcd", None)) for session in SESSIONS]


def test_the_confidence_of_a_session() -> None:
    assert session_confidence(ANSWERS[0]) == pytest.approx(0.925)
    assert session_confidence(ANSWERS[2]) == 0.6
    assert session_confidence(answer("1", ("ab", 0.9), sure=0.2)) == 0.2
    assert session_confidence(answer("1", ("ab", 0.9), ("cd", None))) is None
    assert session_confidence(answer("1")) is None


def test_reliability_by_hand() -> None:
    # Session 1: one bundle matched exactly and one unmatched, both in the last bin.
    found = reliability(SESSIONS, [*ANSWERS[:2], answer("3", ("cd", None))])
    assert found is not None
    rows = [(row.low, row.high, row.bundles, row.confidence, row.jaccard) for row in found.bins]
    assert rows == [(0.2, 0.3, 1, 0.25, 0.5), (0.9, 1.0, 2, pytest.approx(0.925), 0.5)]
    assert found.calibration_error == pytest.approx((0.25 + 2 * 0.425) / 3)
    assert reliability(SESSIONS[2:], ANSWERS[2:]) is None


def test_in_a_session_that_is_empty_nothing_matches() -> None:
    found = reliability([Session("1", ITEMS, ())], [answer("1", ("ab", 1.0))])
    assert found is not None
    assert [(row.high, row.jaccard) for row in found.bins] == [(1.0, 0.0)]


def test_the_cascade_by_hand() -> None:
    rows = cascade(SESSIONS, ANSWERS, TEACHER, seed=0, resamples=50)
    assert [row.below for row in rows] == [step / 10 for step in range(11)]
    # F1 by student and by teacher: 2/3 and 1/2; 1/2 and 1; 0 and 1/2.
    steps = {0.0: (0, 2 / 3 + 1 / 2), 0.3: (1, 2 / 3 + 1), 0.7: (2, 2 / 3 + 1 + 1 / 2), 1.0: (3, 2)}
    for row in rows:
        if row.below in steps:
            calls, total = steps[row.below]
            assert row.teacher_calls == pytest.approx(calls / 3)
            assert row.matched_f1.value == pytest.approx(total / 3)


def test_who_the_teacher_did_not_answer_keeps_the_own_answer() -> None:
    *_, last = cascade(SESSIONS, ANSWERS, TEACHER[2:], seed=0, resamples=50)
    assert last.teacher_calls == pytest.approx(1 / 3)
    assert last.matched_f1.value == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    # A session without an answer has a confidence of 0; without any confidence there is no cascade.
    assert cascade(SESSIONS, ANSWERS[:1], TEACHER, seed=0)[1].teacher_calls == pytest.approx(2 / 3)
    assert cascade(SESSIONS, TEACHER, TEACHER, seed=0) == ()


def test_an_abstained_answer_is_the_first_to_go_to_the_teacher() -> None:
    abstained = [replace(one, bundles=(), error="abstained") for one in ANSWERS]
    rows = cascade(SESSIONS, abstained, TEACHER, seed=0, resamples=2)
    assert [row.teacher_calls for row in rows[:2]] == [0, 1]


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_calls_grow_with_the_threshold(sure: list[float]) -> None:
    answers = [answer(one.id, sure=p) for one, p in zip(SESSIONS, sure, strict=True)]
    calls = [row.teacher_calls for row in cascade(SESSIONS, answers, TEACHER, seed=0, resamples=2)]
    assert calls == sorted(calls)
    assert calls[0] == 0
