from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routedk import Bundle, DataError, Item, Session
from routedk.data import (
    DataOptions,
    has_title,
    load_sessions,
    select_split,
    split_sessions,
)
from routedk.data.bundlerec import first_path

TABLES = {
    "session_item": "session ID,item ID\n2,10\n2,11\n1,10\n1,12\n1,13\n",
    "session_bundle": "session ID,bundle ID\n1,0\n1,1\n",
    "bundle_item": "bundle ID,item ID\n0,10\n0,12\n1,10\n1,12\n1,13\n",
    "bundle_intent": "bundle ID,intent\n0,tea &amp; cake\n1,2\n",
    "item_titles": 'item ID,titles\n10,"Mug, 12&quot;\nblue ""big"""\n12,Caf\u00e9 &amp; Bar\n'
    "11,C\n",
    "item_categories": 'item ID,categories\n10,"[[A &amp; B, C,D],[E]]"\n12,[[F]]\n',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in TABLES.items():
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    return tmp_path


def test_folder_is_read_as_published(folder: Path) -> None:
    mug = Item("10", 'Mug, 12"\nblue "big"', ("A & B, C", "D"))
    bar = Item("12", "Café & Bar", ("F",))
    assert load_sessions(folder, DataOptions(gold="all")) == [
        Session("2", (mug, Item("11", "C")), ()),
        Session(
            "1",
            (mug, bar, Item("13", "")),
            (Bundle(("10", "12"), "tea & cake"), Bundle(("10", "12", "13"), "2")),
        ),
    ]


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("session_item", "session,item\n1,2\n", r"session_item\.csv:1: no column 'session ID'"),
        ("session_item", "session ID,item ID\n", r"session_item\.csv: holds no session"),
        ("session_item", "", r"session_item\.csv: holds no session"),
        ("session_item", "session ID,item ID\n1,2\n1,2\n", r":3: session '1' has item '2' twice"),
        ("session_item", "session ID,item ID\n1\n", r":2: 1 fields, the header has 2 \(quote"),
        ("session_item", "session ID,item ID\n,5\n", r":2: 'session ID' is empty \(fill it in"),
        ("session_bundle", "session ID,bundle ID\n9,0\n", r":2: bundle '0': its session '9' is"),
        ("session_bundle", "session ID,bundle ID\n1,9\n", r":2: bundle '9': .* at least two"),
        ("session_bundle", "session ID,bundle ID\n2,0\n", r"bundle '0': it names \['12'\], not in"),
        ("bundle_item", "bundle ID,item ID\n0,10\n1,10\n", r":2: bundle '0': .* at least two"),
        ("bundle_item", "bundle ID,item ID\n0,10\n0,10\n", r":2: bundle '0': .* an item twice"),
        ("bundle_intent", "bundle ID,intent\n0,a\n0,b\n", r"intent\.csv:3: '0' came before"),
        ("item_titles", "item ID,titles\n1,a, b\n", r":2: 3 fields, the header has 2 \(quote"),
        ("item_titles", 'item ID,titles\n1,"a\n', r":2: invalid CSV: .* \(fix the quotes"),
        ("item_categories", None, r"item_categories\.csv: no such file \(check the path"),
    ],
)
def test_broken_table_names_file_and_line(
    folder: Path, table: str, text: str | None, message: str
) -> None:
    path = folder / f"{table}.csv"
    path.unlink() if text is None else path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message):
        load_sessions(folder)


def test_a_text_or_a_category_that_cannot_be_read_is_missing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "item_titles.csv").write_text("item ID,titles\n10,nan\n12,Caf&eacute;\n")
    (folder / "item_categories.csv").write_text("item ID,categories\n10,Mugs\n12,[[F]]\n")
    session = load_sessions(folder)[1]
    assert [item.title for item in session.items] == ["", "Café", ""]
    assert [item.categories for item in session.items] == [(), ("F",), ()]
    assert caplog.messages == [
        f"1 values that are no title count as missing, the first is 'nan' in "
        f"{folder / 'item_titles.csv'}:2",
        f"1 values that are no category count as missing, the first is 'Mugs' in "
        f"{folder / 'item_categories.csv'}:2",
    ]
    with pytest.raises(DataError, match=r"item_titles\.csv:2: '10': not a title, found 'nan'"):
        load_sessions(folder, DataOptions(strict=True))


NAMES = st.lists(
    st.sampled_from(["Shoes", "Clothing, Shoes & Jewelry", "X: Y", "Novelty, Costumes & More"]),
    min_size=1,
    max_size=4,
)


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_first_path_of_bracketed_categories(paths: list[list[str]]) -> None:
    text = "[" + ",".join("[" + ",".join(names) + "]" for names in paths) + "]"
    assert first_path(text) == tuple(paths[0])


@given(st.text("[],ab &;", max_size=12))
def test_first_path_of_anything_is_a_path_or_a_value_error(text: str) -> None:
    try:
        assert all(first_path(text))
    except ValueError:
        assert not (text.strip().startswith("[[") and text.strip().endswith("]]"))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(sorted(TABLES)), st.integers(0, 60), st.binary(max_size=4))
def test_a_damaged_table_is_read_or_a_data_error(
    folder: Path, table: str, place: int, damage: bytes
) -> None:
    whole = TABLES[table].encode()
    path = folder / f"{table}.csv"
    path.write_bytes(whole[:place] + damage + whole[place + 1 :])
    try:
        assert load_sessions(folder)
    except DataError as error:
        message = str(error)
    else:
        message = f"{path}:"
    path.write_bytes(whole)
    assert ".csv" in message


def test_extra_titles_fill_only_what_is_missing(folder: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.csv"
    extra.write_text("item ID,titles\n13,Tea &amp; Pot\n10,other\n99,none\n")
    session = load_sessions(folder, DataOptions(extra_titles=extra))[1]
    assert [item.title for item in session.items] == [
        'Mug, 12"\nblue "big"',
        "Café & Bar",
        "Tea & Pot",
    ]


@pytest.mark.parametrize(
    ("domain", "counts"),
    [("clothing", (1181, 968, 1488, 1910)), ("electronic", (1145, 893, 1346, 1750))],
)
def test_published_counts(bundlerec: Path, domain: str, counts: tuple[int, ...]) -> None:
    minimal = load_sessions(bundlerec / domain)
    given_ = load_sessions(bundlerec / domain, DataOptions(gold="all"))
    assert counts == (
        len(minimal),
        sum(bool(session.bundles) for session in minimal),
        sum(len(session.gold) for session in minimal),
        sum(len(session.gold) for session in given_),
    )
    assert not any("&amp;" in item.title for session in minimal for item in session.items)


def test_untitled_items_are_never_gold(bundlerec: Path) -> None:
    kept = load_sessions(bundlerec / "electronic")
    dropped = load_sessions(bundlerec / "electronic", DataOptions(untitled="drop"))
    assert sum(len(session.gold) for session in kept) == sum(len(s.gold) for s in dropped)
    assert all(has_title(item) for session in dropped for item in session.items)


def test_electronic_is_whole_with_split_and_extra_titles(bundlerec: Path) -> None:
    folder = bundlerec / "electronic"
    options = DataOptions(
        extra_titles=folder / "item_titles_extra.csv", split_file=folder / "split_aicl.json"
    )
    sessions = load_sessions(folder, options)
    parts = split_sessions(sessions, options)
    assert {part: len(those) for part, those in parts.items()} == {
        "train": 623,
        "val": 90,
        "test": 180,
    }
    for those in parts.values():
        assert all(has_title(item) for session in those for item in session.items)
        assert all(session.bundles for session in those)
    assert select_split(sessions, options, "test")[:3] == parts["test"][:3]
