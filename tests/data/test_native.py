import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
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
from routedk.data.values import MissingValues, as_text

AS_GIVEN = DataOptions(gold="all")
# Texts that reading leaves as they are: "NA" and entities are not.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: as_text(text, "title", MissingValues()) == text
)
IDS = TEXT.filter(str.strip)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    items = draw(
        st.lists(
            st.builds(
                Item,
                id=IDS,
                title=TEXT,
                categories=st.lists(IDS, max_size=3).map(tuple),
                price=st.none() | st.floats(0, 1e6),
                image=st.sampled_from([None, "https://shop.example/a.jpg"]),
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


ROWS = [
    {
        "session_id": number,
        "items": [{"id": 1, "title": "Mug", "price": 39.9}, {"id": 2, "title": None}],
    }
    for number in range(3)
]
READ = [Session(str(number), (Item("1", "Mug", (), 39.9), Item("2", ""))) for number in range(3)]


def test_a_data_frame_is_read() -> None:
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    assert from_dataset(frame) == READ
    frame["items"] = frame["items"].map(np.array)
    frame["bundles"] = [float("nan"), None, [{"items": np.array([1, 2]), "intent": "nan"}]]
    annotated = Session("2", READ[2].items, (Bundle(("1", "2")),))
    assert from_dataset(frame) == [*READ[:2], annotated]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["session_id", "items"], r"<dataset>:1: a row is a str \(a row is a mapping with session"),
        (5, r"cannot read a int \(a row is a mapping with"),
    ],
)
def test_what_has_no_rows_is_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_dataset(data)


def test_dataset_with_sequences_and_decimals() -> None:
    from datasets import Dataset, Features, Sequence, Value

    item = {"id": Value("int64"), "title": Value("binary"), "price": Value("decimal128(8, 2)")}
    features = Features({"session_id": Value("int32"), "items": Sequence(item)})
    items = {"id": [1, 2], "title": [b"Mug", None], "price": [Decimal("39.90"), None]}
    dataset = Dataset.from_dict({"session_id": [0, 1, 2], "items": [items] * 3}, features=features)
    assert isinstance(dataset[0]["items"], dict)
    assert from_dataset(dataset) == READ
    uneven = [{"session_id": 1, "items": {"id": [1, 2], "title": ["a"]}}]
    with pytest.raises(DataError, match=r"items: Input should be a valid list, found \{'id'"):
        from_dataset(uneven)


def test_parquet_of_other_writers(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = {"id": pa.uint8(), "title": pa.binary(), "price": pa.decimal128(8, 2)}
    rows = [
        {
            "session_id": str(number).encode(),
            "items": [
                {"id": 1, "title": b"Mug", "price": Decimal("39.90")},
                {"id": 2, "title": None, "price": None},
            ],
        }
        for number in range(3)
    ]
    schema = pa.schema({"session_id": pa.binary(), "items": pa.list_(pa.struct(fields))})
    path = tmp_path / "F.PARQUET"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    assert load_sessions(path) == READ
    fields["price"] = pa.float64()
    for row in rows:
        row["items"][0]["price"] = 39.9  # type: ignore[index]
        row["items"][1]["price"] = float("nan")  # type: ignore[index]
    schema = pa.schema({"session_id": pa.binary(), "items": pa.list_(pa.struct(fields))})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    assert load_sessions(path) == READ


def test_a_folder_of_parts(tmp_path: Path) -> None:
    write_parquet(tmp_path / "part-0.parquet", READ[:1])
    (tmp_path / "part-1.jsonl").write_text("")
    (tmp_path / "part-2.NDJSON").write_text(json.dumps(ROWS[1]) + "\n" + json.dumps(ROWS[2]))
    (tmp_path / "_part.jsonl").write_text("not a part")
    (tmp_path / "_SUCCESS").write_text("")
    assert load_sessions(tmp_path) == READ
    (tmp_path / "part-3.jsonl").write_text(json.dumps(ROWS[0]))
    with pytest.raises(DataError, match=r"part-3\.jsonl:1: session id '0' .*part-0"):
        load_sessions(tmp_path)


def test_session_twice(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text((json.dumps(GOOD) + "\n") * 2)
    with pytest.raises(DataError, match=r"f\.jsonl:2: session id 's' came .*f\.jsonl:1 \(give"):
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
    pq.write_table(pa.table({"session_id": ["s"], "things": [["a"]]}), path)
    with pytest.raises(
        DataError, match="no column of a usual name for the item; columns: session_id, things"
    ):
        load_sessions(path)
    pq.write_table(pa.table({"session_id": ["s"], "items": [["a"]]}), path)
    with pytest.raises(DataError, match=r"f\.parquet:1: session 's': items.1: Input should be"):
        load_sessions(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", r'no such file or folder \(check the path, or use "demo"\)'),
        (
            "s.xlsx",
            r"unknown kind of file '\.xlsx' \(expected \.jsonl, .* \(save a table as CSV\), a",
        ),
        ("folder", r"not a BundleRec folder: it has no session_item\.csv \(name a folder of"),
    ],
)
def test_unknown_source(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "s.xlsx").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=message):
        load_sessions(tmp_path / name)
