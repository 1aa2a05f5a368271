"""Native records: what is a session, and how a broken one is named."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routedk.data import (
    DataOptions,
    UnreadSession,
    load_sessions,
    scan_sessions,
    session_from_record,
    session_to_record,
)
from routedk.data.values import MissingValues
from routedk.errors import DataError
from routedk.types import Bundle, Item, Session

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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
        ({"session_id": ...}, r"session_id: Field required \(fix or remove this session\)"),
        ({"session_id": " "}, r"session_id: an id is a text that is not empty, or a .*, found ' '"),
        ({"session_id": 1.5}, r"session_id: an id is .*, found 1\.5"),
        ({"session_id": True}, r"session_id: an id is .*, found True"),
        ({"items": ...}, r"session 's': items: Field required"),
        ({"items": None}, r"items: Input should be a valid list, found None"),
        ({"items": []}, r"session 's' has no items \(fix or remove this session"),
        ({"items": ["a"]}, r"items\.1: Input should be a valid dictionary, found 'a'"),
        ({"items": [{"title": "A"}]}, r"session 's': items\.1\.id: Field required"),
        ({"items": [{"id": "a"}, {"id": "a"}]}, r"session 's' has an item id twice"),
        ({"bundles": {}}, r"bundles: Input should be a valid list, found \{\}"),
        ({"bundles": ["a"]}, r"bundles\.1: Input should be a valid dictionary, found 'a'"),
        ({"bundles": [{"intent": "x"}]}, r"bundles\.1\.items: Field required"),
        ({"bundles": [{"items": ["a"]}]}, r"needs at least two items"),
        ({"bundles": [{"items": ["a", "a"]}]}, r"names an item twice"),
        ({"bundles": [{"items": ["a", "z"]}]}, r"a bundle names \['z'\], not in the session"),
        ({"session_id": 10**50}, r"session_id: an id is .*, found 1000"),
        ({"session_id": "\ud800"}, r"session_id: .*surrogates not allowed"),
        ({"session_id": "x" * 5000, "items": []}, r"session 'x+ \.\.\. x+' has no items \(fix"),
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
    assert len(str(caught.value)) <= 300


def read(**item: Any) -> tuple[Item, MissingValues]:
    missing = MissingValues()
    record = {"session_id": "s", "items": [{"id": "a", **item}]}
    return session_from_record(record, path="f", line=1, missing=missing).items[0], missing


@pytest.mark.parametrize(
    ("written", "price"),
    [
        (19.99, 19.99),
        (5, 5.0),
        ("19.99", 19.99),
        ("19,99 €", 19.99),
        ("$1,299.00", 1299.0),
        ("1.299,00 EUR", 1299.0),
        ("1,299", 1299.0),
        ("1 299,50 kr", 1299.5),
        ("CHF 1'299.-", 1299.0),
        ("1\u202f299,00\xa0€", 1299.0),
        ("₹1,29,999.00", 129999.0),
        ("Rs.500", 500.0),
        ("US$.99", 0.99),
        ("0.125", 0.125),
        ("12,345.678", 12345.678),
        ("1.299.000", 1299000.0),
        ("5.2500", 5.25),
        (Decimal("39.90"), 39.9),
        (b"39.90", 39.9),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (None, None),
        ("", None),
        (float("nan"), None),
        (Decimal("NaN"), None),
    ],
)
def test_a_price_as_people_write_it(written: Any, price: float | None) -> None:
    item, missing = read(price=written)
    assert item.price == price
    assert not missing.counts


@pytest.mark.parametrize(
    "written",
    [
        *("ask us", "10 - 20", "-5", "$-5", "12.11.20", "1e3", "1.2.3", "1,23,4.5", "2 for 5"),
        *("5½", "1.5k", "50%", "(5.00)"),
        *(-1, True, 10**400, float("inf"), Decimal("-Infinity"), [1], {"amount": 1}, "9" * 99),
    ],
)
def test_a_price_that_cannot_be_read_is_missing(written: Any) -> None:
    item, missing = read(price=written)
    assert item.price is None
    assert missing.counts == {"price": 1}


@pytest.mark.parametrize("url", ["https://cdn.shop.example/é a.jpg?w=9", "http://localhost:80/a"])
def test_a_picture_is_a_url(url: str) -> None:
    item, missing = read(image=url)
    assert item.image == url
    assert not missing.counts


@pytest.mark.parametrize(
    "written",
    [
        *("a.jpg", "//shop/a.jpg", "javascript:alert(1)", "data:image/png;base64,AA", "https:///a"),
        *("https://a;script-src x/", "https://user@shop/", "https://[::1", "https://shop/a\n.jpg"),
        *("https://shop/" + "x" * 2001, {"bytes": b"", "path": "a"}, 7, None, "nan"),
    ],
)
def test_what_is_no_url_is_no_picture(written: Any) -> None:
    item, missing = read(image=written)
    assert item.image is None
    assert not missing.counts


def test_a_picture_changes_no_record_that_answers_are_kept_by() -> None:
    pictured, plain = (
        session_from_record({"session_id": "s", "items": [{"id": "a", "image": image}]})
        for image in ("https://shop/a.jpg", None)
    )
    assert session_to_record(pictured) == session_to_record(plain)
    assert pictured.toDict() == plain.toDict()
    assert session_to_record(pictured, images=True)["items"][0]["image"] == "https://shop/a.jpg"


@pytest.mark.parametrize(
    ("written", "title", "counted"),
    [
        ("Tea &amp; Pot", "Tea & Pot", 0),
        ("5&#34; &quot;x&quot; &amp;amp; AT&T &amp;lt;b", '5" "x" & AT&T <b', 0),
        ("Black&notebook &c; &#99999999;", "Black&notebook &c; \ufffd", 0),
        ("a\ud800", "a?", 0),
        (b"Caf\xc3\xa9", "Café", 0),
        (b"Caf\xe9", "Caf\ufffd", 0),
        (1984, "1984", 0),
        (np.int64(7), "7", 0),
        (None, "", 0),
        (float("nan"), "", 0),
        ("nan", "", 1),
        (" None ", "", 1),
        ("null", "", 1),
        ("N/A", "", 1),
        ("Nano", "Nano", 0),
        (["a"], "", 1),
        (True, "", 1),
    ],
)
def test_a_title_of_any_export(written: Any, title: str, counted: int) -> None:
    item, missing = read(title=written)
    assert item.title == title
    assert missing.counts["title"] == counted


@pytest.mark.parametrize(
    ("written", "path", "counted"),
    [
        ("Kettles", ("Kettles",), 0),
        ("Kitchen &amp; Dining > Kettles", ("Kitchen & Dining", "Kettles"), 0),
        ([["A", "B"], ["C"]], ("A", "B"), 0),
        (np.array(["A", None, 7], dtype=object), ("A", "7"), 0),
        (("A",), ("A",), 0),
        (None, (), 0),
        (float("nan"), (), 0),
        ([], (), 0),
        (["A", "nan"], ("A",), 1),
        ({"name": "A"}, (), 1),
        (7, (), 1),
    ],
)
def test_categories_of_any_export(written: Any, path: tuple[str, ...], counted: int) -> None:
    item, missing = read(categories=written)
    assert item.categories == path
    assert missing.counts["category"] == counted


def test_what_is_missing_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [
        {"session_id": str(n), "items": [{"id": "a", "title": title, "price": price}]}
        for n, (title, price) in enumerate([("A", "ask us"), ("nan", "?"), ("B", "9 EUR")])
    ]
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    assert [s.items[0].price for s in load_sessions(path)] == [None, None, 9.0]
    assert caplog.messages == [
        f"2 values that are no price count as missing, the first is 'ask us' in {path}:1",
        f"1 values that are no title count as missing, the first is 'nan' in {path}:2",
    ]
    with pytest.raises(DataError, match=r"items\.1\.price: not a price, found 'as"):
        load_sessions(path, DataOptions(strict=True))


def test_a_session_that_cannot_be_read_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(
        '{"session_id": "a", "items": [{"id": "1", "price": NaN}]}\n\n'
        '{"session_id": "b"}\n{"session_id":\n\xff\n[1]\n'
        '{"session_id": "a", "items": [{"id": "2"}]}\n{"session_id": "c", "items": [{"id": 3}]}\n',
        encoding="latin-1",
    )
    found = list(scan_sessions(path))
    assert [one.id for one in found] == ["a", "b", "line 4", "line 5", "line 6", "a", "c"]
    unread = {one.id: str(one.error) for one in found if isinstance(one, UnreadSession)}
    assert unread["b"].startswith(f"{path}:3: session 'b': items: Field required")
    assert unread["line 4"].startswith(f"{path}:4: invalid JSON: Expecting value")
    assert unread["line 5"].startswith(f"{path}:5: byte 0xff is not UTF-8")
    assert unread["line 6"].startswith(f"{path}:6: expected a JSON object, found list")
    assert unread["a"].startswith(f"{path}:7: session id 'a' came before, in {path}:1")
    with pytest.raises(DataError, match=r":3: session 'b'"):
        load_sessions(path)
    with pytest.raises(DataError, match=r":3: session 'b'"):
        list(scan_sessions(path, DataOptions(strict=True)))
