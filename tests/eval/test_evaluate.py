import json
from dataclasses import replace

import pytest

from routedk.errors import DataError, SettingError
from routedk.eval import METRICS, EvaluateConfig, Report, System, evaluate, make_answer
from routedk.eval.table import report_notes, report_table
from routedk.similarity import TfidfEncoder
from routedk.types import Answer, Bundle, Item, Session

ENCODER = TfidfEncoder(["camera bag", "kitchen", "trip", "very long"])
ITEMS = tuple(Item(name, "") for name in "abcd")
SESSIONS = [
    Session("1", ITEMS, (Bundle(("a", "b"), "camera bag"), Bundle(("c", "d"), "kitchen"))),
    Session("2", ITEMS, (Bundle(("a", "b", "c", "d"), "trip"),)),
    Session("3", ITEMS, (Bundle(("a", "b"), ""),)),
    Session("none", ITEMS, ()),
]
ANSWERS = [
    make_answer("1", [(["a", "b"], "bag camera"), (["c"], "")]),
    make_answer("2", [(["a", "b"], "trip"), (["c", "d"], "")]),
    make_answer("none", [(["a", "b"], "ignored")]),
]


def scored(answers: list[Answer], **settings: bool) -> System:
    system = evaluate(SESSIONS, answers, EvaluateConfig(**settings), encoder=ENCODER).system
    assert system is not None
    return system


def test_means_over_sessions_by_hand() -> None:
    system = scored(ANSWERS, intents=False)
    values = {
        protocol: {metric: leaf.value for metric, leaf in metrics.items()}
        for protocol, metrics in system.results.items()
    }
    # Sessions 1, 2 and 3: one of two gold bundles; two halves of one; no answer.
    assert values["matched"] == pytest.approx(
        {"precision": (1 + 0.25 + 0) / 3, "recall": 1 / 3, "f1": (2 / 3 + 1 / 3) / 3, "exact": 0}
    )
    assert values["strict"] == pytest.approx(
        {"precision": (1 + 0.5) / 3, "recall": (0.5 + 1) / 3, "coverage": (1 + 0.5) / 3}
    )
    assert values["aicl"] == pytest.approx(
        {"precision": 1.0, "recall": (0.5 + 2) / 2, "coverage": (1 + 0.5 + 0.5) / 3}
    )
    assert system.session_f1 == pytest.approx((2 / 3, 1 / 3, 0.0))
    assert system.to_dict()["counts"] == {
        "sessions": 3,
        "answered": 2,
        "dropped": 1,
        "bundles": 3,
        "gold_bundles": 4,
        "empty_sessions": 1,
    }
    assert system.intents is None


def test_intents_of_matched_bundles() -> None:
    intents = scored(ANSWERS).intents
    assert intents is not None
    # The order of words is nothing to TF-IDF; session 2 matches one of its two halves.
    assert intents.similarity.value == pytest.approx(1.0)
    assert intents.length.value == pytest.approx(1.5)
    assert intents.pairs == 2
    assert scored([make_answer("1", [(["a", "b"], " ")])]).intents is None


def test_intent_length_counts_words() -> None:
    intents = scored(
        [make_answer("1", [(["a", "b"], "a very long one"), (["c", "d"], "two words")])]
    ).intents
    assert intents is not None
    assert intents.length.value == pytest.approx(3.0)


def test_no_predictions_at_all() -> None:
    record = scored([]).to_dict()
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert record["results"] == {
        protocol: dict.fromkeys(metrics, zero) for protocol, metrics in METRICS.items()
    }
    assert record["counts"]["answered"] == 0


def test_what_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="none of the 1 sessions to evaluate has a gold bundle"):
        evaluate(SESSIONS[3:], ANSWERS, encoder=ENCODER)
    with pytest.raises(SettingError, match="no prediction is of a session of this split: use the"):
        evaluate(SESSIONS[:2], ANSWERS[2:], encoder=ENCODER)
    with pytest.raises(SettingError, match="nothing to score: give --predictions FILE"):
        evaluate(SESSIONS)
    with pytest.raises(SettingError, match="no reference is of a session of this split: use the"):
        evaluate(SESSIONS[:2], ANSWERS[:2], encoder=ENCODER, reference=ANSWERS[2:])


@pytest.mark.parametrize("name", ["seed", "resamples"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(SettingError, match=f"{name}=-1: it must be at least"):
        EvaluateConfig(**{name: -1})  # type: ignore[arg-type]


def test_a_report_is_json_with_every_leaf_an_interval() -> None:
    system = replace(scored(ANSWERS), config={"predictions": "p.jsonl"})
    report = Report(
        config={"split": "test"},
        system=system,
        baselines=(
            replace(system, name="whole-session", config={}),
            replace(system, name="category-1", config={"leaks": True}),
            replace(
                system,
                name="embedding-clusters",
                config={"threshold": 0.5, "tuned_on": "val", "leaks": True},
            ),
        ),
    )
    record = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    own = {"results", "counts", "intents", "empties"}
    assert set(record) == own | {"config", "versions", "baselines"}
    assert record["config"] == {"split": "test", "predictions": "p.jsonl"}
    assert {"python", "routedk", "numpy"} <= set(record["versions"])
    for block in (record, *record["baselines"].values()):
        assert {p: tuple(m) for p, m in block["results"].items()} == dict(METRICS)
        for metrics in block["results"].values():
            for leaf in metrics.values():
                assert leaf["low"] <= leaf["value"] <= leaf["high"]
    assert report_table(report).row_count == 4
    notes = "\n".join(report_notes(report))
    for part in ("3 sessions with 4 gold", "1 more dropped", "Intents:", "clusters at 0.5"):
        assert part in notes
    assert notes.count("Leak") == 1
    shown = str(report)
    assert notes in shown
    assert "…" not in shown
    assert max(map(len, shown.split("\n\n")[0].splitlines())) <= 80


def test_a_report_of_baselines_alone() -> None:
    report = Report(config={}, baselines=(scored(ANSWERS),))
    assert set(report.to_dict()) == {"config", "versions", "baselines"}
    assert "Leak" not in str(report)
