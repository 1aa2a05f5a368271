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
    session_from_record,
    session_to_record,
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
    with pytest.raises(DataError, match=r"dict of splits: train \(hand in one of them"):
        from_dataset(splits)


@QUICK
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["session_id", "items", "id", "title", "bundles", "price"]), inner
            )
        ),
    )
)
def test_any_record_is_a_session_or_a_data_error(value: Any) -> None:
    record = value if isinstance(value, dict) else {"session_id": "s", "items": value}
    try:
        session = session_from_record(record, path="f", line=1)
    except DataError as error:
        session, message = None, str(error)
    if session is None:
        assert message.startswith("f:1: ")
    else:
        assert session_from_record(session_to_record(session)) == session


def test_optional_keys_and_numbers_as_ids() -> None:
    record = {
        "session_id": 7,
        "items": [{"id": 1, "colour": "red"}, {"id": "2", "title": None, "categories": ["A"]}],
        "bundles": [{"items": [1, 2]}],
        "shop": "x",
    }
    items = (Item("1", ""), Item("2", "", ("A",)))
    assert session_from_record(record) == Session("7", items, (Bundle(("1", "2")),))


def test_not_annotated_differs_from_no_bundle() -> None:
    record: dict[str, Any] = {"session_id": "s", "items": [{"id": "1"}]}
    assert session_from_record(record).bundles is None
    assert session_from_record({**record, "bundles": []}).bundles == ()


GOOD = {"session_id": "s", "items": [{"id": "a", "title": "A"}, {"id": "b", "title": "B"}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session_id": ...}, r"the session has no key 'session_id' \(add 'session_id'\)"),
        ({"session_id": " "}, r"session_id is ' ' \(it must be a text that is not empty, or a"),
        ({"session_id": 1.5}, r"session_id is 1\.5"),
        ({"session_id": True}, r"session_id is True"),
        ({"items": ...}, r"session 's' has no key 'items'"),
        ({"items": None}, r"items is None \(it must be a list"),
        ({"items": []}, r"session 's' has no items \(mend or remove this session"),
        ({"items": ["a"]}, r"item 1: it is 'a' \(it must be an object"),
        ({"items": [{"title": "A"}]}, r"item 1 has no key 'id'"),
        ({"items": [{"id": "a"}, {"id": "a"}]}, r"session 's' has an item id twice"),
        ({"items": [{"id": "a", "title": 5}]}, r"title is 5 \(it must be a text"),
        ({"items": [{"id": "a", "title": "\ud800"}]}, r"without half surrogate pairs"),
        ({"items": [{"id": "a", "categories": "A"}]}, r"categories is 'A' \(it must be a list"),
        ({"items": [{"id": "a", "categories": [1]}]}, r"category is 1 \(it must be a text"),
        ({"items": [{"id": "a", "price": "9 EUR"}]}, r"price is '9 EUR' \(it must be a number"),
        ({"items": [{"id": "a", "price": -1}]}, r"price is -1 \(it must be a finite number of"),
        ({"items": [{"id": "a", "price": 10**400}]}, r"it must be a finite number"),
        ({"bundles": {}}, r"bundles is \{\} \(it must be a list"),
        ({"bundles": ["a"]}, r"bundle 1: it is 'a' \(it must be an object"),
        ({"bundles": [{"intent": "x"}]}, r"bundle 1 has no key 'items'"),
        ({"bundles": [{"items": ["a"]}]}, r"needs at least two items"),
        ({"bundles": [{"items": ["a", "a"]}]}, r"names an item twice"),
        ({"bundles": [{"items": ["a", "z"]}]}, r"a bundle names \['z'\], not in the session"),
        ({"bundles": [{"items": ["a", "b"], "intent": 1}]}, r"intent is 1 \(it must be a text"),
    ],
)
def test_broken_record_names_file_and_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    record = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({**GOOD, "session_id": "first"}) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(DataError, match=message) as caught:
        load_sessions(path)
    assert str(caught.value).startswith(f"{path}:2: ")


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
    with pytest.raises(DataError, match=r"f\.parquet:1: session 's': item 1: it is 'a'"):
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
