import json
from pathlib import Path

import pytest

from routedk.errors import DataError
from routedk.eval import make_answer, read_predictions, write_predictions
from routedk.types import Answer, Bundle, Item, Session

SESSIONS = [
    Session("1", tuple(Item(name, "") for name in "abc")),
    Session("2", (Item("7", ""), Item("8", ""))),
]


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def line(session_id: object, *bundles: object, intent: object = "x") -> dict[str, object]:
    return {
        "session_id": session_id,
        "bundles": [{"items": items, "intent": intent} for items in bundles],
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    answers = [
        make_answer("2", [(["8", "7"], "cables – “long”")]),
        make_answer("1", [(["a", "b"], ""), (["a", "b", "c"], "all")]),
    ]
    write_predictions(tmp_path / "p.jsonl", answers)
    assert read_predictions(tmp_path / "p.jsonl", SESSIONS) == answers


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Parquet file"):
        read_predictions(tmp_path, [])


def test_what_is_known_of_an_answer_is_kept(tmp_path: Path) -> None:
    bundle = Bundle(("a", "b"), kind="alternatives", confidence=0.5)
    answers = [
        Answer("1", (bundle,), confidence=0.25),
        Answer("2", error="the answer is empty"),
    ]
    write_predictions(tmp_path / "p.jsonl", answers)
    assert read_predictions(tmp_path / "p.jsonl", SESSIONS) == answers
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert [sorted(json.loads(line))[1:] for line in lines] == [
        ["confidence", "session_id"],
        ["error", "session_id"],
    ]


def test_bundles_that_are_none_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        line("1", ["a", "b", "a"], ["b", "a"], ["c"], ["c", "c"], [], ["b", "c"], intent=None),
        line(2),
    )
    first, second = read_predictions(path, SESSIONS)
    assert first.items == [frozenset("ab"), frozenset("bc")]
    assert [bundle.intent for bundle in first.bundles] == ["", ""]
    assert first.dropped == (
        "an earlier bundle again: ['b', 'a']",
        "fewer than two items: ['c']",
        "fewer than two items: ['c']",
        "fewer than two items: []",
    )
    assert second.bundles == ()


def test_whole_numbers_are_ids_too(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"session_id": 2, "bundles": [{"items": [7, 8]}]})
    assert read_predictions(path, SESSIONS)[0].items == [frozenset({"7", "8"})]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([line("1", ["a", "x", "y"])], "p.jsonl:1: session '1' has no item 'x', 'y' ("),
        ([line("1"), line("9"), line("8")], "p.jsonl:2: the data set has no session '9' ("),
        ([line("1"), line("1")], "p.jsonl:2: session '1' again, after line 1"),
        ([{"bundles": []}], "p.jsonl:1: session_id: Field required (expected"),
        ([{"session_id": True, "bundles": []}], "session_id: an id is a text that is not empty"),
        ([{"session_id": "1"}], "bundles: Field required"),
        ([{"session_id": "1", "bundles": [["a", "b"]]}], "bundles.1: Input should be a valid"),
        ([{"session_id": "1", "bundles": [{"items": "ab"}]}], "valid list, found 'ab'"),
        ([line("1", ["a", None])], "bundles.1.items.2: an id is a text that is not empty"),
        ([["1"]], "p.jsonl:1: expected a JSON object"),
    ],
)
def test_broken_files_are_named(records: list[object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_predictions(write(tmp_path / "p.jsonl", *records), SESSIONS)
    assert message in str(caught.value)


def test_an_error_may_be_of_a_session_that_is_not_there(tmp_path: Path) -> None:
    answers = [Answer("gone", error="it was dropped"), Answer("1")]
    write_predictions(tmp_path / "p.jsonl", answers)
    assert read_predictions(tmp_path / "p.jsonl", SESSIONS) == [Answer("1")]


def test_what_rules_changed_is_read_and_other_values_of_that_name_are_not(tmp_path: Path) -> None:
    bundle = Bundle(("a", "b"), changed=("left out 'c': 'c' is out of stock",))
    answers = [Answer("1", (bundle,)), Answer("2", changed=("no bundle of '7', '8': prices",))]
    write_predictions(tmp_path / "p.jsonl", answers)
    assert read_predictions(tmp_path / "p.jsonl", SESSIONS) == answers
    other = {**line("1", ["a", "b"]), "changed": True}
    other["bundles"][0]["changed"] = {"at": "noon"}  # type: ignore[index]
    (read,) = read_predictions(write(tmp_path / "q.jsonl", other), SESSIONS)
    assert (read.changed, read.bundles[0].changed) == ((), ())
