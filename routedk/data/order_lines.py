"""Sessions from shop exports, one line per item, whose columns have the usual names.

The lines of a session need not be adjacent: SQLite sorts them in a temporary file, so that memory
does not grow with their number.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from routedk.data.records import ItemRecord, Rows
from routedk.data.validation import Id, checked
from routedk.data.values import NO_TEXT, MissingValues
from routedk.errors import DataError, SettingError
from routedk.types import Item, Session

# In lower case, without spaces and punctuation; the first match wins.
_NAMES = {
    "session": "order session usersession basket cart invoice transaction",
    "item": "lineitemsku sku asin product stock item article productsku itemsku",
    "title": "lineitemname producttitle productname itemtitle itemname title name "
    "productdescription itemdescription description product item article",
    "category": "category categories categoryname productcategory itemcategory",
    "price": "price unitprice lineitemprice itemprice productprice itemcost",
    "timestamp": "timestamp time datetime date createdat orderdate invoicedate eventtime",
    "quantity": "quantity qty lineitemquantity itemquantity orderquantity qtyordered",
}
# Suffixes of id columns.
_ENDS = ("id", "number", "no", "nr", "code", "key", "")
# Often a line's position in its order: an id only if there is no other.
_PLACES = ("itemnumber", "itemno", "itemnr")
_RETURN = re.compile(r"\s*(?:[-−(]\s*\d.*|0+(?:[.,]0*)?)\s*")
# Times that sort correctly as text.
_ISO = re.compile(r"\d{4}-\d\d-\d\d|\d{10}")
_ID: TypeAdapter[str] = TypeAdapter(Id)
_ITEM = TypeAdapter(ItemRecord)
_BETWEEN_NAMES = "\x1f"
_CREATE = "CREATE TABLE line (session, item, title, categories, price, time, place)"
_INSERT = "INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?)"
# A title that a line lacks is taken from the first line of the same item that has one.
_IN_ORDER = """
WITH titled AS MATERIALIZED (
    SELECT item, title, min(rowid) FROM line
    WHERE title <> '' AND item IN (SELECT item FROM line WHERE title = '') GROUP BY item
)
SELECT session, item, coalesce(nullif(line.title, ''), titled.title, ''), categories, price, place
FROM (SELECT *, rowid AS number, min(rowid) OVER (PARTITION BY session) AS first FROM line) AS line
LEFT JOIN titled USING (item) ORDER BY first, time, number
"""


def parse_columns(text: str | None) -> dict[str, str]:
    """Parse the columns that a user names, e.g. ``session=InvoiceNo,item=StockCode``, by role.

    Raises:
        SettingError: It is not of this form.
    """
    parts = (part.partition("=") for part in text.split(",")) if text else ()
    named = [(role.strip(), name.strip()) for role, _, name in parts]
    found = dict(named)
    if len(found) < len(named) or not all(role in _NAMES and name for role, name in named):
        form = f"session=InvoiceNo,item=StockCode, each once, out of {', '.join(_NAMES)}"
        raise SettingError(f"columns must be of the form {form}, got {text!r}")
    return found


def find_columns(
    names: Iterable[str], given: Mapping[str, str], path: str | Path
) -> dict[str, str]:
    """Find the columns of order lines, by role.

    Args:
        names: All columns of the file.
        given: Those that the user names; case, spaces and punctuation do not matter.
        path: The file.

    Raises:
        DataError: A given column is missing, there is none for sessions or for items, or several
            could be the session.
    """
    columns = [*names]
    by_key = {_key(name): name for name in reversed(columns)}
    # Shopify calls an order's number its name.
    if {"name", "lineitemname"} <= by_key.keys():
        given = {"session": "name", **given}
    found: dict[str, str] = {}

    def fail(problem: str) -> DataError:
        hint = "say which: --columns session=COLUMN,item=COLUMN,title=COLUMN"
        return DataError(f"{problem}; columns: {', '.join(columns)}", path=path, hint=hint)

    for role, words in _NAMES.items():
        ends = _ENDS if role in ("session", "item") else ("",)
        nouns = {word + end: word for end in ends for word in words.split()}
        nouns |= {key: nouns.pop(key) for key in _PLACES if key in nouns}
        if given.get(role) in columns:
            found[role] = given[role]
            continue
        if role in given:
            nouns = {_key(given[role]): role}
        hits = [key for key in nouns if key in by_key]
        # An order may have an id and a number, but is not its invoice.
        if role == "session" and len({nouns[key] for key in hits}) > 1:
            raise fail(f"the session may be {' or '.join(repr(by_key[key]) for key in hits)}")
        if role in given and not hits:
            raise fail(f"no column {given[role]!r}")
        if hits:
            found[role] = by_key[hits[0]]
    if "session" not in found or not found.keys() & {"item", "title"}:
        lacking = "item" if "session" in found else "session"
        raise fail(f"no column of a usual name for the {lacking}")
    return found


def read_order_lines(
    rows: Rows, columns: Mapping[str, str], missing: MissingValues, path: str | Path
) -> Iterator[Session]:
    """Sessions of two or more items, in the order of their first lines.

    Args:
        rows: The lines.
        columns: Those that the user names.
        missing: Counts what cannot be read and what is left out.
        path: Name of the whole source in errors.

    Raises:
        DataError: A column is missing, no session has two items, or a line is unreadable (strict).
    """
    sessions = items = 0
    try:
        # Several threads may advance this generator in turn.
        with closing(sqlite3.connect("", check_same_thread=False)) as base:
            base.execute(_CREATE)
            base.executemany(_INSERT, _kept(rows, columns, missing))
            lines = base.total_changes + missing.left_out.total()
            for session in _sessions(base.execute(_IN_ORDER), missing):
                sessions, items = sessions + 1, items + len(session.items)
                yield session
    except sqlite3.Error as error:
        hint = "free space in the folder for temporary files"
        raise DataError(f"cannot sort its lines: {error}", path=path, hint=hint) from error
    if not sessions:
        if not lines:
            raise DataError("it has no lines", path=path, hint="is it the right file?")
        problem = f"no session of two items: {missing.shown_left_out()}"
        raise DataError(problem, path=path, hint=f"read by {missing.read or 'no column'}")
    read = f"{sessions:,} sessions of {items:,} items from {lines:,} lines"
    missing.read = f"{read} by {missing.read}"


def _kept(
    rows: Rows, columns: Mapping[str, str], missing: MissingValues
) -> Iterator[tuple[Any, ...]]:
    """The lines as rows of the table, without those that are left out."""
    for path, group in groupby(rows, key=itemgetter(0)):
        # A JSONL record may lack keys that others have.
        head = list(islice(group, 100))
        errors = [record for _, _, record in head if isinstance(record, DataError)]
        if len(errors) == len(head):
            raise errors[0]
        names = chain(*(record for _, _, record in head if isinstance(record, Mapping)))
        chosen = find_columns(dict.fromkeys(names), columns, path)
        missing.read = missing.read or ",".join(f"{role}={name}" for role, name in chosen.items())
        for _, line, record in chain(head, group):
            # SQLite rejects a lone surrogate, which a file's name may contain.
            missing.place = f"{path}:{line}".encode(errors="replace").decode()
            if isinstance(record, DataError):
                if missing.strict:
                    raise record
                missing.leave_out("lines that cannot be read")
                continue
            values = {role: record.get(name) for role, name in chosen.items()}
            title, category, price = (values.get(one) for one in ("title", "category", "price"))
            fields = {"id": 0, "title": title, "categories": category, "price": price}
            read = checked(_ITEM, fields, path=path, line=line, context=missing)
            session, time = _id(values["session"]), str(values.get("timestamp"))
            item = _id(values.get("item")) or read.title.strip()
            if _RETURN.fullmatch(str(values.get("quantity"))):
                missing.leave_out("lines with a quantity of 0 or less")
            elif not (session and item):
                missing.leave_out("lines without a session or an item")
            else:
                categories = _BETWEEN_NAMES.join(read.categories)
                sorts = time if _ISO.match(time) else None
                yield session, item, read.title, categories, read.price, sorts, missing.place


def _sessions(rows: Iterable[tuple[Any, ...]], missing: MissingValues) -> Iterator[Session]:
    for session, lines in groupby(rows, key=itemgetter(0)):
        items: dict[str, Item] = {}
        for _, item, title, categories, price, missing.place in lines:
            if item in items:
                missing.leave_out("lines that repeat an item of their session")
            else:
                path = filter(None, categories.split(_BETWEEN_NAMES))
                items[item] = Item(item, title, tuple(path), price)
        if len(items) > 1:
            yield Session(session, tuple(items.values()))
        else:
            missing.leave_out("sessions of one item")


def _id(value: object) -> str:
    """An id as text; empty if there is none."""
    with suppress(ValueError):
        text = _ID.validate_python(value).strip()
        return "" if text.casefold() in NO_TEXT else text
    return ""


def _key(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold())) or name
