import csv
import gzip
import io
import json
import logging
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routedk import DataError, Item, Session
from routedk.data import DataOptions, load_sessions, scan_sessions, write_jsonl

HEADER = ["Order ID", "sku", "Product-Name", "CATEGORY", "Unit_Price", "qty"]
ROWS = [
    ["00123", "536365", 'Mug, 12" &amp; blue', "Kitchen > Mugs", "19,99 €", "1"],
    ["00123", "0071", "Café Bar\nwhite", "", "$1,299.00", "2"],
    ["7", "0071", "", "", "1.299,00 EUR", "1"],
    ["00123", "9", "Tea &amp;amp; Pot", "Kitchen", "3", ""],
    ["7", "9", "Tea Pot", "Kitchen", "", "1"],
]
MUG = Item("536365", 'Mug, 12" & blue', ("Kitchen", "Mugs"), 19.99)
BAR = Item("0071", "Café Bar\nwhite", (), 1299.0)
READ = [
    Session("00123", (MUG, BAR, Item("9", "Tea & Pot", ("Kitchen",), 3.0))),
    # The title of the first line of the same item.
    Session("7", (BAR, Item("9", "Tea Pot", ("Kitchen",), None))),
]
SUMMARY = (
    "read 2 sessions of 5 items from 5 lines by session=Order ID,item=sku,title=Product-Name,"
    "category=CATEGORY,price=Unit_Price,quantity=qty; left out: nothing"
)


def text_of(rows: list[list[str]], separator: str = ",", line_end: str = "\r\n") -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, lineterminator=line_end).writerows(rows)
    return out.getvalue()


def records_of(rows: list[list[str]]) -> list[dict[str, Any]]:
    return [dict(zip(HEADER, row, strict=True)) for row in rows]


def _parts(path: Path) -> None:
    path.mkdir()
    (path / "part-0.csv").write_text(text_of([HEADER, *ROWS[:1]]))
    (path / "part-1.CSV").write_text(text_of([HEADER]))
    # Its columns have other names, and stand elsewhere.
    header = ["price", "item_id", "order", "title", "quantity", "categories"]
    rows = [[price, sku, order, title, qty, kind] for order, sku, title, kind, price, qty in ROWS]
    (path / "part-2.tsv.gz").write_bytes(gzip.compress(text_of([header, *rows[1:]], "\t").encode()))
    (path / "_SUCCESS.csv").write_text("")
    (path / ".part-0.csv.crc").write_text("")


def _parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(records_of(ROWS)), path)


WHOLE = [HEADER, *ROWS]
FORMS: dict[str, Callable[[Path], object]] = {
    "f.csv": lambda path: path.write_text(text_of(WHOLE)),
    "semicolons.csv": lambda path: path.write_text(text_of(WHOLE, ";")),
    "bars.csv": lambda path: path.write_text(text_of(WHOLE, "|")),
    "tabs.csv": lambda path: path.write_text(text_of(WHOLE, "\t")),
    "F.TSV": lambda path: path.write_text(text_of(WHOLE, "\t")),
    "quoted.csv": lambda path: path.write_text(text_of(WHOLE).replace("sku", '"sku"')),
    "newlines.csv": lambda path: path.write_text("\n" + text_of(WHOLE, line_end="\n\n")),
    "macintosh.csv": lambda path: path.write_bytes(text_of(WHOLE).replace("\r\n", "\r").encode()),
    "bom.csv": lambda path: path.write_text(text_of(WHOLE), encoding="utf-8-sig"),
    "utf16.csv": lambda path: path.write_text(text_of(WHOLE), encoding="utf-16"),
    "big.tsv": lambda path: path.write_bytes(("\ufeff" + text_of(WHOLE, "\t")).encode("utf-16-be")),
    "f.csv.gz": lambda path: path.write_bytes(gzip.compress(text_of(WHOLE).encode())),
    "f.ndjson": lambda path: path.write_text("\n".join(map(json.dumps, records_of(ROWS)))),
    "f.jsonl.gz": lambda path: path.write_bytes(
        gzip.compress("\n\n".join(map(json.dumps, records_of(ROWS))).encode())
    ),
    "f.parquet": _parquet,
    "parts": _parts,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    FORMS[form](tmp_path / form)
    assert load_sessions(tmp_path / form) == READ
    assert caplog.messages == [SUMMARY]
    assert list(scan_sessions(tmp_path / form)) == READ


MESSY = """order,sku,name,price,quantity
1,a,A,ask us,1
1,b,B,2.50,-1
1,b,B,2.50,1
1,a,A again,1.00,1
2,a,A,1.00,0
,a,A,1.00,1
nan,a,A,1.00,1
3,,,1.00,1
3,a,A,1.00,two
4,a,A,1.00
4,b,B,"1.00,1
4,c,C,1.00,1
5,,Only a title,,0.5
5,a,nan,,
"""


def test_what_is_left_out_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "f.csv"
    path.write_text(MESSY)
    assert load_sessions(path) == [Session("1", (Item("a", "A"), Item("b", "B", (), 2.5)))]
    caplog.clear()
    # The quote that is never closed hides the last lines.
    path.write_text(MESSY.replace('"', ""))
    assert load_sessions(path) == [
        Session("1", (Item("a", "A"), Item("b", "B", (), 2.5))),
        Session("4", (Item("b", "B", (), 1.0), Item("c", "C", (), 1.0))),
        Session("5", (Item("Only a title", "Only a title"), Item("a", "A"))),
    ]
    assert caplog.messages == [
        "read 3 sessions of 6 items from 14 lines by session=order,item=sku,title=name,"
        "price=price,quantity=quantity; left out: 2 lines with a quantity of 0 or less (first: "
        "f.csv:3), 3 lines without a session or an item (first: f.csv:7), 1 lines that cannot be "
        "read (first: f.csv:11), 1 lines that repeat an item of their session (first: f.csv:5), "
        "1 sessions of one item (first: f.csv:10)",
        f"1 values that are no price count as missing, the first is 'ask us' in {path}:2",
        f"1 values that are no title count as missing, the first is 'nan' in {path}:15",
    ]


def test_what_old_programs_save_is_windows_1252(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes("order;title;price\n1;Käse – 12 €;1,50 £\n1;Tee;2\n".encode("cp1252"))
    (session,) = load_sessions(path)
    assert [(item.title, item.price) for item in session.items] == [
        ("Käse – 12 €", 1.5),
        ("Tee", 2),
    ]


def test_lines_after_an_open_quote_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "f.csv"
    path.write_text('order,title\n1,a\n1,b\n2,"a\n2,b\n3,c\n')
    assert len(load_sessions(path)) == 1
    assert "from 5 lines" in caplog.text
    assert "left out: 3 lines that cannot be read (first: f.csv:4)" in caplog.text
    with pytest.raises(DataError, match=r"f\.csv:4: invalid CSV: .* \(fix the quotes\)"):
        load_sessions(path, DataOptions(strict=True))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1,a,ask", r"f\.csv:2: price: not a price, found 'ask' \(fix or remove"),
        ("1,a", r'f\.csv:2: 2 fields, the header has 3 \(quote a field that holds a \',\': "a, b"'),
    ],
)
def test_strict(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(f"order,sku,price\n{lines}\n2,a,1\n2,b,1\n")
    assert [session.id for session in load_sessions(path)] == ["2"]
    with pytest.raises(DataError, match=message):
        load_sessions(path, DataOptions(strict=True))


def test_numbers_of_a_parquet_file(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "f.parquet"
    table = pd.DataFrame(
        {
            # As pandas has whole numbers beside a missing one.
            "InvoiceNo": [536365.0, 536365.0, None],
            "StockCode": [22, 71053, 5],
            "UnitPrice": [2.55, float("nan"), 1],
            "Quantity": [6, 1, -2],
            "InvoiceDate": [datetime(2026, 1, day) for day in (2, 1, 3)],
            "items": [1, 2, 3],
        }
    )
    table.to_parquet(path)
    with pytest.raises(DataError, match=r"f\.parquet:1: session_id: Field required"):
        load_sessions(path)
    table.drop(columns="items").to_parquet(path)
    assert load_sessions(path) == [Session("536365", (Item("71053", ""), Item("22", "", (), 2.55)))]


def test_times_order_the_items_of_a_session(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"

    def items(*times: str) -> list[str]:
        lines = (f"1,{name},{time}\n" for name, time in zip("abc", times, strict=True))
        path.write_text("session_id,item_id,timestamp\n" + "".join(lines))
        return [item.id for item in load_sessions(path)[0].items]

    assert items("2026-01-01 10:00", "2025-12-31 09:00", "2026-01-01 09:59") == ["b", "c", "a"]
    assert items("1700000002", "1700000001", "1700000003") == ["b", "a", "c"]
    # Such times do not sort as texts: the order of the lines stays.
    assert items("12/1/2010 8:26", "1/1/2011 8:26", "") == ["a", "b", "c"]


def test_a_record_may_lack_what_others_have(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    records = [{"order": 1, "sku": "a"}, {"order": 1, "sku": "b", "title": "B"}, {"sku": "c"}]
    path.write_text("\n".join(map(json.dumps, records)) + "\n[1]\n")
    assert load_sessions(path) == [Session("1", (Item("a", ""), Item("b", "B")))]


def test_which_files_of_a_folder_are_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "s.jsonl", READ)
    (tmp_path / "titles.csv").write_text("item ID,titles\n1,A\n")
    assert load_sessions(tmp_path) == READ


def test_threads_may_take_turns(tmp_path: Path) -> None:
    FORMS["f.csv"](tmp_path / "f.csv")
    found = scan_sessions(tmp_path / "f.csv")
    first = next(found)
    with ThreadPoolExecutor(1) as threads:
        assert [first, *threads.submit(list, found).result()] == READ


IDS = st.text("aAß1_ &;,\"'\t|\n", max_size=3)
LINES = st.lists(st.tuples(IDS, IDS, st.sampled_from(["", "Mug", "Pot"])), min_size=1, max_size=12)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(LINES, st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_lines_in_any_order_become_their_sessions(
    tmp_path: Path, lines: list[tuple[str, str, str]], separator: str, encoding: str
) -> None:
    titles: dict[str, str] = {}
    carts: dict[str, dict[str, str]] = {}
    for session, item, title in lines:
        session, item = session.strip(), item.strip() or title
        if session and item:
            titles.setdefault(item, "")
            titles[item] = titles[item] or title
            carts.setdefault(session, {}).setdefault(item, title)
    expected = [
        Session(session, tuple(Item(id, title or titles[id]) for id, title in items.items()))
        for session, items in carts.items()
        if len(items) > 1
    ]
    path = tmp_path / "f.csv"
    rows = [["order", "sku", "title"], *map(list, lines)]
    path.write_bytes(text_of(rows, separator).encode(encoding))
    if expected:
        assert load_sessions(path) == expected
    else:
        with pytest.raises(DataError, match=r"no session of two items|no lines"):
            load_sessions(path)


def test_shuffled_lines_are_the_same_sessions(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [[str(n), f"{n}-{i}", f"Item {i}"] for n in range(400) for i in range(rng.randint(2, 9))]
    path = tmp_path / "f.csv"

    def items() -> dict[str, set[str]]:
        path.write_text(text_of([["cart_id", "asin", "title"], *rows]))
        return {one.id: {item.id for item in one.items} for one in load_sessions(path)}

    adjacent = items()
    rng.shuffle(rows)
    assert items() == adjacent
    assert len(adjacent) == 400
