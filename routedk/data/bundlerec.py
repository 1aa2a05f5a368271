"""BundleRec's folder of CSVs, read as published.

Source: Sun et al., "Revisiting Bundle Recommendation" (SIGIR 2022), the released data sets.
"""

import csv
import html
import io
from pathlib import Path

from routedk.errors import DataError
from routedk.files import read_text
from routedk.types import Bundle, Item, Session

_TABLES = {
    "session_item": ("session ID", "item ID"),
    "session_bundle": ("session ID", "bundle ID"),
    "bundle_item": ("bundle ID", "item ID"),
    "bundle_intent": ("bundle ID", "intent"),
    "item_titles": ("item ID", "titles"),
    "item_categories": ("item ID", "categories"),
}

Row = tuple[int, str, str]


def read_bundlerec(folder: str | Path) -> list[Session]:
    """The sessions of one BundleRec domain, in the order of ``session_item.csv``.

    Sessions without an entry in ``session_bundle.csv`` have no bundle (``bundles == ()``). Items
    without an entry in ``item_titles.csv`` have an empty title. Of several category paths the
    first is kept.

    Raises:
        DataError: When it is no BundleRec folder, or one of its tables is broken.
    """
    folder = Path(folder)
    if not (folder / "session_item.csv").is_file():
        raise DataError(
            "not a BundleRec folder: it has no session_item.csv",
            path=folder,
            hint="name a folder with " + ", ".join(f"{name}.csv" for name in _TABLES),
        )
    tables = {
        name: read_two_columns(folder / f"{name}.csv", *columns)
        for name, columns in _TABLES.items()
    }
    titles = by_key(tables["item_titles"], folder / "item_titles.csv")
    categories = _categories(tables["item_categories"], folder / "item_categories.csv")
    items: dict[str, dict[str, Item]] = {}
    for line, session_id, item_id in tables["session_item"]:
        members = items.setdefault(session_id, {})
        if item_id in members:
            raise DataError(
                f"session {session_id!r} has item {item_id!r} twice",
                path=folder / "session_item.csv",
                line=line,
                hint="remove one of the lines",
            )
        members[item_id] = Item(
            item_id, html.unescape(titles.get(item_id, "")), categories.get(item_id, ())
        )
    if not items:
        raise DataError(
            "holds no session", path=folder / "session_item.csv", hint="expected one item a line"
        )
    bundles = _bundles(tables, folder, items)
    return [
        Session(session_id, tuple(members.values()), tuple(bundles.get(session_id, ())))
        for session_id, members in items.items()
    ]


def read_two_columns(path: Path, first: str, second: str) -> list[Row]:
    """Two columns of a CSV with a header, with the line on which each row ends.

    Raises:
        DataError: When the file is not CSV, a column is missing, a row has too few or too many
            fields, or the first column is empty.
    """
    rows: list[Row] = []
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in (first, second):
            if name not in header:
                raise DataError(
                    f"no column {name!r} among {header}",
                    path=path,
                    line=1,
                    hint=f"the first line names the columns: {first},{second}",
                )
        one, two = header.index(first), header.index(second)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{len(row)} fields, the header has {len(header)}",
                    path=path,
                    line=reader.line_num,
                    hint='quote a field that holds a comma: "a, b"',
                )
            if not row[one].strip():
                raise DataError(
                    f"{first!r} is empty", path=path, line=reader.line_num, hint="fill it in"
                )
            rows.append((reader.line_num, row[one].strip(), row[two]))
    except csv.Error as error:
        raise DataError(
            f"invalid CSV: {error}", path=path, line=reader.line_num, hint="mend the quotes"
        ) from None
    return rows


def by_key(rows: list[Row], path: Path) -> dict[str, str]:
    """Rows as a dict.

    Raises:
        DataError: When a key comes twice.
    """
    values: dict[str, str] = {}
    for line, key, value in rows:
        if key in values:
            raise DataError(
                f"{key!r} came before", path=path, line=line, hint="remove one of the lines"
            )
        values[key] = value
    return values


def first_path(text: str) -> tuple[str, ...]:
    """The first path of BundleRec's bracketed categories, ``[[A,B, C],[D]]`` -> A / "B, C".

    Paths end with ``]``, names with a comma that no blank follows. Entities are unescaped.

    Raises:
        ValueError: When the text is not two brackets deep.
    """
    text = text.strip()
    if not (text.startswith("[[") and text.endswith("]]")):
        raise ValueError("categories are not of the form [[A,B],[C]]")
    names: list[str] = []
    for part in text[2:-2].split("],[")[0].split(","):
        if part.startswith(" ") and names:
            names[-1] += "," + part
        else:
            names.append(part)
    return tuple(name for name in (html.unescape(name).strip() for name in names) if name)


def _categories(rows: list[Row], path: Path) -> dict[str, tuple[str, ...]]:
    by_key(rows, path)
    paths: dict[str, tuple[str, ...]] = {}
    for line, item_id, text in rows:
        try:
            paths[item_id] = first_path(text)
        except ValueError as error:
            raise DataError(
                f"item {item_id!r}: {error}", path=path, line=line, hint="mend the brackets"
            ) from None
    return paths


def _bundles(
    tables: dict[str, list[Row]], folder: Path, items: dict[str, dict[str, Item]]
) -> dict[str, list[Bundle]]:
    """Bundles by session; every error names the line that asks for what is not there."""
    intents = by_key(tables["bundle_intent"], folder / "bundle_intent.csv")
    members: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for line, bundle_id, item_id in tables["bundle_item"]:
        members.setdefault(bundle_id, []).append(item_id)
        lines.setdefault(bundle_id, line)
    bundles: dict[str, list[Bundle]] = {}
    for line, session_id, bundle_id in tables["session_bundle"]:
        if session_id not in items or bundle_id not in members:
            file = "session_item.csv" if session_id not in items else "bundle_item.csv"
            missing = (
                f"session {session_id!r}" if session_id not in items else f"bundle {bundle_id!r}"
            )
            raise DataError(
                f"{missing} is not in {file}",
                path=folder / "session_bundle.csv",
                line=line,
                hint="the tables must belong together",
            )
        foreign = [item_id for item_id in members[bundle_id] if item_id not in items[session_id]]
        if foreign:
            raise DataError(
                f"bundle {bundle_id!r} names {foreign}, not in session {session_id!r}",
                path=folder / "bundle_item.csv",
                line=lines[bundle_id],
                hint="the tables must belong together",
            )
        try:
            bundle = Bundle(
                tuple(members[bundle_id]), html.unescape(intents.get(bundle_id, "")).strip()
            )
        except DataError as error:
            raise DataError(
                f"bundle {bundle_id!r}: {error.problem}",
                path=folder / "bundle_item.csv",
                line=lines[bundle_id],
                hint="mend or remove this bundle",
            ) from None
        bundles.setdefault(session_id, []).append(bundle)
    return bundles
