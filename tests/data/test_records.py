"""Native records: what is a session, and how a broken one is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routedk.data import load_sessions, session_from_record, session_to_record
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
        ({"items": ["a"]}, r"items\.1: Input should be a valid dictionary .*, found 'a'"),
        ({"items": [{"title": "A"}]}, r"session 's': items\.1\.id: Field required"),
        ({"items": [{"id": "a"}, {"id": "a"}]}, r"session 's' has an item id twice"),
        ({"items": [{"id": "a", "title": 5}]}, r"title: Input should be a valid string, found 5"),
        (
            {"items": [{"id": "a", "title": "\ud800"}]},
            r"title: .*surrogates not allowed, found '\\ud800'",
        ),
        ({"items": [{"id": "a", "categories": "A"}]}, r"categories: .* valid list, found 'A'"),
        ({"items": [{"id": "a", "categories": [1]}]}, r"categories\.1: .* valid string, found 1"),
        ({"items": [{"id": "a", "price": "9 EUR"}]}, r"price: .* valid number, found '9 EUR'"),
        ({"items": [{"id": "a", "price": -1}]}, r"price: .* greater than or equal to 0, found -1"),
        ({"items": [{"id": "a", "price": 10**400}]}, r"items\.1\.price: "),
        ({"bundles": {}}, r"bundles: Input should be a valid list, found \{\}"),
        ({"bundles": ["a"]}, r"bundles\.1: Input should be a valid dictionary .*, found 'a'"),
        ({"bundles": [{"intent": "x"}]}, r"bundles\.1\.items: Field required"),
        ({"bundles": [{"items": ["a"]}]}, r"needs at least two items"),
        ({"bundles": [{"items": ["a", "a"]}]}, r"names an item twice"),
        ({"bundles": [{"items": ["a", "z"]}]}, r"a bundle names \['z'\], not in the session"),
        ({"bundles": [{"items": ["a", "b"], "intent": 1}]}, r"intent: .* valid string, found 1"),
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
