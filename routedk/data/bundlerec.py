"""BundleRec's folder of CSV files, read as published.

Source: Sun et al., "Revisiting Bundle Recommendation" (SIGIR 2022), the released data sets.
"""

from functools import partial
from pathlib import Path

from routedk.data.csv_file import Row, read_columns, read_values
from routedk.data.values import MissingValues, as_categories, as_text
from routedk.errors import DataError
from routedk.types import Bundle, Item, Session

_TABLES = {
    "session_item": ("session ID", "item ID"),
    "session_bundle": ("session ID", "bundle ID"),
    "bundle_item": ("bundle ID", "item ID"),
}
SESSION_ITEM = "session_item.csv"
"""The file that identifies a BundleRec folder."""


def read_bundlerec(folder: Path, missing: MissingValues) -> list[Session]:
    """The sessions of one BundleRec domain, in the order of ``session_item.csv``.

    Sessions without an entry in ``session_bundle.csv`` have no bundle (``bundles == ()``). Items
    without an entry in ``item_titles.csv`` have an empty title. Only the first of several category
    paths is kept.

    Args:
        folder: The folder.
        missing: Counts the titles, intents and categories that cannot be read.

    Raises:
        DataError: It is not a BundleRec folder, or one of its tables is broken.
    """
    if not (folder / SESSION_ITEM).is_file():
        raise DataError(
            f"not a BundleRec folder: it has no {SESSION_ITEM}",
            path=folder,
            hint="name a folder of .jsonl or .parquet files, or with BundleRec's six tables",
        )
    tables = {
        name: read_columns(folder / f"{name}.csv", *columns) for name, columns in _TABLES.items()
    }

    def texts(table: str, key: str, column: str, name: str) -> dict[str, str]:
        read = partial(as_text, name=name, missing=missing)
        return read_values(folder / f"{table}.csv", key, column, read, missing)

    titles = texts("item_titles", "item ID", "titles", "title")
    intents = texts("bundle_intent", "bundle ID", "intent", "intent")
    path, file = partial(_categories, missing=missing), folder / "item_categories.csv"
    categories = read_values(file, "item ID", "categories", path, missing)
    items: dict[str, dict[str, Item]] = {}
    for line, session_id, item_id in tables["session_item"]:
        members = items.setdefault(session_id, {})
        if item_id in members:
            problem = f"session {session_id!r} has item {item_id!r} twice"
            hint = "remove one of the lines"
            raise DataError(problem, path=folder / SESSION_ITEM, line=line, hint=hint)
        members[item_id] = Item(item_id, titles.get(item_id, ""), categories.get(item_id, ()))
    if not items:
        hint = "expected one item a line"
        raise DataError("holds no session", path=folder / SESSION_ITEM, hint=hint)
    bundles = _bundles(tables, intents, folder, items)
    return [
        Session(session_id, tuple(members.values()), tuple(bundles.get(session_id, ())))
        for session_id, members in items.items()
    ]


def first_path(text: str) -> tuple[str, ...]:
    """The first path of BundleRec's bracketed categories, ``[[A,B, C],[D]]`` -> A / "B, C".

    Paths end with ``]``, names with a comma that no space follows.

    Raises:
        ValueError: The text is not in double brackets.
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
    return tuple(name.strip() for name in names if name.strip())


def _categories(text: str, missing: MissingValues) -> tuple[str, ...]:
    try:
        return as_categories(first_path(text), missing)
    except ValueError:
        missing.add("category", text)
        return ()


def _bundles(
    tables: dict[str, list[Row]],
    intents: dict[str, str],
    folder: Path,
    items: dict[str, dict[str, Item]],
) -> dict[str, list[Bundle]]:
    """Bundles by session; an error names the bundle's line in ``session_bundle.csv``."""
    members: dict[str, list[str]] = {}
    for _, bundle_id, item_id in tables["bundle_item"]:
        members.setdefault(bundle_id, []).append(item_id)
    found: dict[str, list[Bundle]] = {}
    for line, session_id, bundle_id in tables["session_bundle"]:
        inside, ids = items.get(session_id, {}), members.get(bundle_id, [])
        try:
            if not inside:
                raise DataError(f"its session {session_id!r} is not in session_item.csv")
            if foreign := [name for name in ids if name not in inside]:
                raise DataError(f"it names {foreign}, not in session {session_id!r}")
            bundle = Bundle(tuple(ids), intents.get(bundle_id, "").strip())
        except DataError as error:
            problem = f"bundle {bundle_id!r}: {error.problem}"
            hint = "the tables must belong together"
            path = folder / "session_bundle.csv"
            raise DataError(problem, path=path, line=line, hint=hint) from None
        found.setdefault(session_id, []).append(bundle)
    return found
