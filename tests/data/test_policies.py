import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk import Bundle, DataError, Item, Session, SettingError
from routedk.data import (
    DataOptions,
    apply_policies,
    load_sessions,
    minimal_bundles,
    select_split,
    split_sessions,
)


def session(name: str, *bundles: str, titles: str = "abcdef") -> Session:
    """A session of the items a to f; items not in ``titles`` have none."""
    items = tuple(Item(i, i.upper() if i in titles else " ") for i in "abcdef")
    return Session(name, items, tuple(Bundle(tuple(b), f"{n} {b}") for n, b in enumerate(bundles)))


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ([], []),
        (["ab"], ["0 ab"]),
        (["ab", "ba"], ["0 ab"]),
        (["abc", "ab"], ["1 ab"]),
        (["ab", "abc", "abcd", "cd"], ["0 ab", "3 cd"]),
        (["ab", "bc"], ["0 ab", "1 bc"]),
        (["abc", "abc", "de"], ["0 abc", "2 de"]),
    ],
)
def test_minimal_bundles(given_: list[str], kept: list[str]) -> None:
    bundles = session("s", *given_).bundles
    assert bundles is not None
    assert [bundle.intent for bundle in minimal_bundles(bundles)] == kept


@given(st.lists(st.sets(st.sampled_from("abcdef"), min_size=2).map(sorted), max_size=6))
def test_minimal_bundles_hold_no_nesting_and_cover_all(sets: list[list[str]]) -> None:
    bundles = [Bundle(tuple(names)) for names in sets]
    kept = [bundle.items for bundle in minimal_bundles(bundles)]
    assert all(not a <= b for a in kept for b in kept if a is not b)
    assert all(any(k <= bundle.items for k in kept) for bundle in bundles)
    assert minimal_bundles(minimal_bundles(bundles)) == minimal_bundles(bundles)


def test_gold_all_keeps_bundles_as_given() -> None:
    given_ = [session("s", "ab", "ba", "abc")]
    assert apply_policies(given_, DataOptions(gold="all")) == given_


def test_untitled_drop_cuts_bundles_and_sessions() -> None:
    options = DataOptions(untitled="drop")
    (cut,) = apply_policies(
        [session("s", "ab", "bcd", "def", titles="cd"), session("t", "ab", titles="a")], options
    )
    assert [item.id for item in cut.items] == ["c", "d"]
    assert [bundle.item_ids for bundle in cut.bundles or ()] == [("c", "d")]
    bare = Session("u", session("u", titles="ab").items)
    assert apply_policies([bare], options)[0].bundles is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gold": "some"}, "gold is 'some': it must be one of minimal, all"),
        ({"untitled": "hide"}, "untitled is 'hide': it must be one of keep, drop"),
        ({"seed": -1}, "seed is -1: it must be a whole number of at least 0"),
        ({"seed": 1.0}, "seed is 1.0: it must be a whole number"),
    ],
)
def test_options_quote_the_bad_value(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        DataOptions(**settings)  # type: ignore[arg-type]


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
        ([], r"split\.json: not a split file \(expected"),
        ({"train": [], "test": []}, r"no split 'val' \(expected"),
        ({"train": [], "val": [], "test": [], "rest": []}, "unknown or repeated split 'rest'"),
        ({"train": [], "val": [], "dev": [], "test": []}, "unknown or repeated split 'dev'"),
        ({"train": "1", "val": [], "test": []}, "split 'train' is not a list"),
        ({"train": [None], "val": [], "test": []}, "split 'train' holds None, not a session id"),
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
