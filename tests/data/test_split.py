import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.data import DataOptions, load_sessions, select_split, split_sessions
from routedk.errors import DataError, SettingError
from routedk.types import Item, Session


def session(name: str) -> Session:
    return Session(name, (Item("a", "A"),))


@given(st.integers(1, 60), st.integers(0, 5))
def test_seeded_split_is_a_partition_that_order_does_not_change(count: int, seed: int) -> None:
    sessions = [session(str(number)) for number in range(count)]
    options = DataOptions(seed=seed)
    parts = split_sessions(sessions, options)
    names = {part: {s.id for s in those} for part, those in parts.items()}
    assert sorted(n for those in names.values() for n in those) == sorted(s.id for s in sessions)
    turned = split_sessions(sessions[::-1], options)
    assert {part: {s.id for s in those} for part, those in turned.items()} == names
    assert abs(len(parts["train"]) - 0.7 * count) <= 1
    assert abs(len(parts["val"]) - 0.1 * count) <= 1


def test_seed_changes_the_split() -> None:
    sessions = [session(str(number)) for number in range(30)]
    tests = {
        tuple(s.id for s in select_split(sessions, DataOptions(seed=n), "test")) for n in range(5)
    }
    assert len(tests) == 5
    assert select_split(sessions, DataOptions(), "all") == sessions


def test_unknown_split() -> None:
    with pytest.raises(SettingError, match="split is 'dev': it must be one of train, val, test"):
        select_split([session("s")], DataOptions(), "dev")  # type: ignore[arg-type]


def split_file(tmp_path: Path, value: object) -> DataOptions:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(value))
    return DataOptions(split_file=path)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev"])
def test_split_file_gives_its_sessions_in_its_order(tmp_path: Path, val: str) -> None:
    options = split_file(tmp_path, {"train": ["2", 0], val: [1], "test": []})
    sessions = [session(str(number)) for number in range(4)]
    parts = split_sessions(sessions, options)
    assert {part: [s.id for s in those] for part, those in parts.items()} == {
        "train": ["2", "0"],
        "val": ["1"],
        "test": [],
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"split\.json: Input should be a valid dictionary, found \[\] \(expected"),
        ({"train": [], "test": []}, r"the splits are train, test \(expected"),
        ({"train": [], "val": [], "test": [], "rest": []}, "the splits are train, val, test, rest"),
        ({"train": [], "val": [], "dev": [], "test": []}, "the splits are train, val, dev, test"),
        ({"train": "1", "val": [], "test": []}, "train: Input should be a valid list, found '1'"),
        ({"train": [None], "val": [], "test": []}, r"train\.1: an id is a text .*, found None"),
        ({"train": ["1"], "val": [1], "test": []}, "session '1' is in train and in val"),
        (
            {"train": ["x"], "val": ["y"], "test": []},
            "names 2 sessions that do not exist: 'x', 'y'",
        ),
    ],
)
def test_broken_split_file(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_sessions([session("1")], split_file(tmp_path, value))


def test_split_ids_are_checked_before_sessions_are_dropped(tmp_path: Path) -> None:
    data = tmp_path / "s.jsonl"
    data.write_text('{"session_id": 1, "items": [{"id": 1, "title": "A"}, {"id": 2}]}\n')
    good = split_file(tmp_path, {"train": [1], "val": [], "test": []}).split_file
    options = DataOptions(split_file=good, untitled="drop")
    assert select_split(load_sessions(data, options), options, "train") == []
    split_file(tmp_path, {"train": [2], "val": [], "test": []})
    with pytest.raises(DataError, match="names 1 sessions that do not exist: '2'"):
        load_sessions(data, options)
