import json

import pytest

from routedk.errors import DataError
from routedk.eval import METRICS, Report, System, TfidfEncoder, evaluate, make_answer
from routedk.eval.table import report_notes, report_table
from routedk.types import Bundle, Item, Session

ENCODER = TfidfEncoder(["camera bag", "kitchen", "trip", "very long"])
ITEMS = tuple(Item(name, "") for name in "abcd")
SESSIONS = [
    Session("1", ITEMS, (Bundle(("a", "b"), "camera bag"), Bundle(("c", "d"), "kitchen"))),
    Session("2", ITEMS, (Bundle(("a", "b", "c", "d"), "trip"),)),
    Session("3", ITEMS, (Bundle(("a", "b"), ""),)),
    Session("none", ITEMS, ()),
]
PREDICTIONS = {
    "1": make_answer([(["a", "b"], "bag camera"), (["c"], "")]),
    "2": make_answer([(["a", "b"], "trip"), (["c", "d"], "")]),
    "none": make_answer([(["a", "b"], "ignored")]),
}


def test_means_over_sessions_by_hand() -> None:
    result = evaluate(SESSIONS, PREDICTIONS, seed=0)
    values = {
        protocol: {metric: leaf.value for metric, leaf in metrics.items()}
        for protocol, metrics in result.results.items()
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
    counts = result.to_dict()["counts"]
    assert counts == {
        "sessions": 3,
        "answered": 2,
        "dropped": 1,
        "bundles": 3,
        "gold_bundles": 4,
        "without_gold": 1,
        "aicl_sessions": 2,
    }
    assert result.intents is None


def test_intents_of_matched_bundles() -> None:
    intents = evaluate(SESSIONS, PREDICTIONS, seed=0, encoder=ENCODER).intents
    assert intents is not None
    # The order of words is nothing to TF-IDF; session 2 matches one of its two halves.
    assert intents.similarity.value == pytest.approx(1.0)
    assert intents.length.value == pytest.approx(1.5)
    assert intents.pairs == 2
    silent = {"1": make_answer([(["a", "b"], " ")])}
    assert evaluate(SESSIONS, silent, seed=0, encoder=ENCODER).intents is None


def test_intent_length_counts_words() -> None:
    said = {"1": make_answer([(["a", "b"], "a very long one"), (["c", "d"], "two words")])}
    intents = evaluate(SESSIONS, said, seed=0, encoder=ENCODER).intents
    assert intents is not None
    assert intents.length.value == pytest.approx(3.0)


def test_no_predictions_at_all() -> None:
    record = evaluate(SESSIONS, {}, seed=0).to_dict()
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert record["results"] == {
        protocol: dict.fromkeys(metrics, zero) for protocol, metrics in METRICS.items()
    }
    assert record["counts"]["answered"] == 0


def test_nothing_to_score() -> None:
    with pytest.raises(DataError, match="none of the 1 sessions to evaluate has a gold bundle"):
        evaluate(SESSIONS[3:], PREDICTIONS, seed=0)


def test_report_is_json_with_every_leaf_an_interval() -> None:
    result = evaluate(SESSIONS, PREDICTIONS, seed=0, encoder=ENCODER)
    report = Report(
        config={"split": "test", "gold": "minimal", "untitled": "drop", "leaks": True},
        system=System(name="predictions", result=result, config={"predictions": "p.jsonl"}),
        baselines=(
            System(name="whole-session", result=result),
            System(name="category-1", result=result, config={"leaks": True}),
            System(name="x", result=result, config={"threshold": 0.5, "tuned_on": "val"}),
        ),
    )
    record = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(record) == {"results", "counts", "intents", "config", "versions", "baselines"}
    assert record["config"]["predictions"] == "p.jsonl"
    assert {"python", "routedk", "numpy"} <= set(record["versions"])
    for block in (record, *record["baselines"].values()):
        assert {p: tuple(m) for p, m in block["results"].items()} == dict(METRICS)
        for metrics in block["results"].values():
            for leaf in metrics.values():
                assert leaf["low"] <= leaf["value"] <= leaf["high"]
    assert report_table(report).row_count == 4
    notes = "\n".join(report_notes(report))
    for part in ("3 sessions with 4 gold", "1 more dropped", "Intents:", "x at 0.5", "--untitled"):
        assert part in notes
    assert notes.count("Leak") == 2


def test_report_of_baselines_alone_has_no_results_of_a_system() -> None:
    result = evaluate(SESSIONS, PREDICTIONS, seed=0)
    config = {"split": "all", "gold": "all", "untitled": "keep", "leaks": False}
    report = Report(config=config, baselines=(System(name="whole-session", result=result),))
    assert set(report.to_dict()) == {"config", "versions", "baselines"}
    assert "Leak" not in "\n".join(report_notes(report))
