import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routedk import Bundle, DataError, Item, Session
from routedk.data import (
    DataOptions,
    from_dataset,
    load_sessions,
    to_dataset,
    write_jsonl,
    write_parquet,
)

AS_GIVEN = DataOptions(gold="all")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
IDS = TEXT.filter(str.strip)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    items = draw(
        st.lists(
            st.builds(
                Item,
                id=IDS,
                title=TEXT,
                categories=st.lists(TEXT, max_size=3).map(tuple),
                price=st.none() | st.floats(0, 1e6),
            ),
            min_size=2,
            max_size=6,
            unique_by=lambda item: item.id,
        )
    )
    ids = [item.id for item in items]
    members = st.lists(st.sampled_from(ids), min_size=2, unique=True).map(tuple)
    bundles = st.lists(st.builds(Bundle, members, TEXT), max_size=3).map(tuple)
    return Session(draw(IDS), tuple(items), draw(st.none() | bundles))


DATA_SETS = st.lists(sessions(), min_size=1, max_size=4, unique_by=lambda session: session.id)
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(DATA_SETS)
def test_jsonl_gives_back_what_was_written(tmp_path: Path, given_: list[Session]) -> None:
    path = tmp_path / "s.jsonl"
    write_jsonl(path, given_)
    assert load_sessions(path, AS_GIVEN) == given_


@QUICK
@given(DATA_SETS)
def test_parquet_gives_back_what_was_written(tmp_path: Path, given_: list[Session]) -> None:
    path = tmp_path / "s.parquet"
    write_parquet(path, given_)
    assert load_sessions(path, AS_GIVEN) == given_


def test_dataset_gives_back_what_was_handed_in() -> None:
    given_ = load_sessions("demo")[:20]
    dataset = to_dataset(given_)
    assert dataset.column_names == ["session_id", "items", "bundles"]
    assert from_dataset(dataset) == given_
    assert from_dataset(dataset.to_iterable_dataset()) == given_


def test_dataset_dict_is_refused() -> None:
    splits: Any = {"train": to_dataset(load_sessions("demo")[:2])}
    with pytest.raises(DataError, match=r"dict of splits: train \(pass one of them"):
        from_dataset(splits)


GOOD = {"session_id": "s", "items": [{"id": "a", "title": "A"}, {"id": "b", "title": "B"}]}


def test_session_twice(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text((json.dumps(GOOD) + "\n") * 2)
    with pytest.raises(DataError, match=r"f\.jsonl:2: session id 's' came before, on line 1"):
        load_sessions(path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("\n")
    with pytest.raises(DataError, match=r"f\.jsonl: holds no session"):
        load_sessions(path)


def test_broken_parquet(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    write_parquet(path, load_sessions("demo")[:5])
    whole = path.read_bytes()
    for cut in (b"", whole[:100], whole[:-9], whole[:-100]):
        path.write_bytes(cut)
        with pytest.raises(DataError, match=r"not a readable Parquet file: .*write it again"):
            load_sessions(path)


def test_parquet_without_a_column(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"session_id": ["s"], "basket": [["a"]]}), path)
    with pytest.raises(DataError, match="no column 'items' among session_id, basket"):
        load_sessions(path)
    pq.write_table(pa.table({"session_id": ["s"], "items": [["a"]]}), path)
    with pytest.raises(DataError, match=r"f\.parquet:1: session 's': items.1: Input should be"):
        load_sessions(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", r'no such file or folder \(check the path, or use "demo"\)'),
        ("s.csv", r"unknown kind of file '\.csv' \(expected \.jsonl, \.parquet, a BundleRec"),
        ("folder", r"not a BundleRec folder: it has no session_item\.csv \(name a folder with"),
    ],
)
def test_unknown_source(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "s.csv").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=message):
        load_sessions(tmp_path / name)
