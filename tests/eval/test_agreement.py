import json

import pytest

from routedk.errors import DataError
from routedk.eval import Agreement, EvaluateConfig, agreement, evaluate
from routedk.types import Answer, Bundle, Item, Kind, Session

ITEMS = tuple(Item(name, name) for name in "abcdef")
SESSIONS = [Session(name, ITEMS) for name in "1234"]


def answer(name: str, *bundles: tuple[str, Kind | None], sure: float | None = None) -> Answer:
    made = (Bundle(tuple(items), kind=kind, confidence=sure) for items, kind in bundles)
    return Answer(name, tuple(made))


REFERENCE = [
    answer("1", ("ab", "complements"), ("cdef", "alternatives")),
    answer("2", ("ab", "complements"), ("ef", "mixed")),
    answer("3"),
]
ANSWERS = [
    # cd is half of cdef, enough to compare kinds.
    answer("1", ("ab", "complements"), ("cd", "complements"), sure=0.7),
    # abcde is .4 of ab; ef has no kind.
    answer("2", ("abcde", "alternatives"), ("ef", None)),
    answer("3"),
    answer("4", ("ab", "mixed")),
]


def agreed(answers: list[Answer]) -> Agreement:
    return agreement(SESSIONS, answers, REFERENCE, seed=0, resamples=100)


def test_agreement_is_matched_f1_with_the_reference_as_gold() -> None:
    found = agreed(ANSWERS)
    f1 = [(1 + 0.5) / 2, (0.4 + 1) / 2, 1]
    assert found.matched_f1.value == pytest.approx(sum(f1) / 3)
    assert (found.sessions, found.answered) == (3, 3)
    assert agreed(ANSWERS[:1]).matched_f1.value == pytest.approx(f1[0] / 3)
    assert found.reliability is not None
    assert [row.jaccard for row in found.reliability.bins] == [0.75]


def test_kinds_of_matched_bundles_by_hand() -> None:
    kinds = agreed(ANSWERS).kinds
    assert kinds is not None
    assert (kinds.pairs, kinds.agreeing.value) == (2, 0.5)
    assert (kinds.majority_kind, kinds.majority) == ("complements", 0.5)
    assert kinds.confusion["complements"] == {"complements": 1, "alternatives": 0, "mixed": 0}
    assert kinds.confusion["alternatives"] == {"complements": 1, "alternatives": 0, "mixed": 0}
    assert agreed([answer("1", ("ab", None))]).kinds is None


def test_sessions_without_gold_have_agreement_alone() -> None:
    config = EvaluateConfig(resamples=100)
    report = evaluate(SESSIONS, ANSWERS, config, reference=REFERENCE)
    assert report.systems == ()
    record = json.loads(json.dumps(report.to_dict()))
    assert set(record) == {"config", "versions", "agreement"}
    shown = str(report)
    assert shown.startswith("Agreement with the reference: matched F1 .817 ")
    assert "Kinds agree on .500 " in shown
    assert "always complements: .500" in shown
    assert "matched reference bundle: agreement" in shown
    assert max(map(len, shown.splitlines())) <= 80
    with pytest.raises(DataError, match=r"none of the 4 sessions .* and a --reference"):
        evaluate(SESSIONS, ANSWERS, config)


@pytest.mark.parametrize(
    ("answers", "reference", "what"),
    [
        ([], REFERENCE, "the predictions are empty"),
        (ANSWERS, [Answer("1", error="it was refused")], "the reference answers none of them"),
        (
            ANSWERS,
            [Answer("1", error="it was refused"), Answer("other")],
            "the reference answers none of them",
        ),
        ([], [], "the reference answers none of them"),
    ],
)
def test_where_there_is_nothing_to_compare_it_is_said(
    answers: list[Answer], reference: list[Answer], what: str
) -> None:
    with pytest.raises(DataError, match=f"none of the 4 sessions .* gold bundle, and {what} "):
        evaluate(SESSIONS, answers, EvaluateConfig(resamples=100), reference=reference)


def test_with_gold_the_reference_is_a_system_too() -> None:
    gold = [Session("1", ITEMS, (Bundle(("a", "b")),)), Session("3", ITEMS, ()), *SESSIONS[1:2]]
    config = EvaluateConfig(intents=False, resamples=100)
    report = evaluate(gold, ANSWERS, config, reference=REFERENCE)
    assert [system.name for system in report.systems] == ["predictions", "reference"]
    assert report.systems[1].f1.value == pytest.approx(2 / 3)
    assert [row.teacher_calls for row in report.cascade][6:9] == [0.0, 0.0, 1.0]
    assert report.reliability is not None
    record = json.loads(json.dumps(report.to_dict()))
    assert {"agreement", "reliability", "cascade", "empties"} <= set(record)
    assert len(record["cascade"]) == 11
    shown = str(report)
    for part in (
        "1 sessions without a gold",
        "Cascade:",
        "Expected calibration error",
        "Agreement",
    ):
        assert part in shown
    # Recorded for the session with gold alone, it says nothing of the others.
    alone = evaluate(gold, ANSWERS, config, reference=REFERENCE[:1])
    assert [system.empties is None for system in alone.systems] == [False, True]
