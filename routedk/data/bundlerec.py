"""BundleRec's folder of CSVs, read as published.

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
"""By which a folder of BundleRec is known."""
_TOGETHER = "the tables must belong together"


def read_bundlerec(folder: Path, missing: MissingValues) -> list[Session]:
    """The sessions of one BundleRec domain, in the order of ``session_item.csv``.

    Sessions without an entry in ``session_bundle.csv`` have no bundle (``bundles == ()``). Items
    without an entry in ``item_titles.csv`` have an empty title. Of several category paths the
    first is kept.

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
    title, intent = (partial(as_text, name=n, missing=missing) for n in ("title", "intent"))
    path = partial(_categories, missing=missing)
    titles = read_values(folder / "item_titles.csv", "item ID", "titles", title, missing)
    intents = read_values(folder / "bundle_intent.csv", "bundle ID", "intent", intent, missing)
    file = folder / "item_categories.csv"
    categories = read_values(file, "item ID", "categories", path, missing)
    file = folder / SESSION_ITEM
    items: dict[str, dict[str, Item]] = {}
    for line, session_id, item_id in tables["session_item"]:
        members = items.setdefault(session_id, {})
        if item_id in members:
            problem = f"session {session_id!r} has item {item_id!r} twice"
            raise DataError(problem, path=file, line=line, hint="remove one of the lines")
        members[item_id] = Item(item_id, titles.get(item_id, ""), categories.get(item_id, ()))
    if not items:
        raise DataError("holds no session", path=file, hint="expected one item a line")
    bundles = _bundles(tables, intents, folder, items)
    return [
        Session(session_id, tuple(members.values()), tuple(bundles.get(session_id, ())))
        for session_id, members in items.items()
    ]


def first_path(text: str) -> tuple[str, ...]:
    """The first path of BundleRec's bracketed categories, ``[[A,B, C],[D]]`` -> A / "B, C".

    Paths end with ``]``, names with a comma that no blank follows.

    Raises:
        ValueError: The text is not two brackets deep.
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
    """Bundles by session; every error names the line that asks for what is not there."""
    members: dict[str, list[Row]] = {}
    for row in tables["bundle_item"]:
        members.setdefault(row[1], []).append(row)
    bundles: dict[str, list[Bundle]] = {}
    for line, session_id, bundle_id in tables["session_bundle"]:
        fail = partial(DataError, path=folder / "session_bundle.csv", line=line, hint=_TOGETHER)
        if session_id not in items:
            raise fail(f"session {session_id!r} is not in session_item.csv")
        if bundle_id not in members:
            raise fail(f"bundle {bundle_id!r} is not in bundle_item.csv")
        first = members[bundle_id][0]
        fail = partial(DataError, path=folder / "bundle_item.csv", line=first[0], hint=_TOGETHER)
        item_ids = tuple(item_id for _, _, item_id in members[bundle_id])
        if foreign := [item_id for item_id in item_ids if item_id not in items[session_id]]:
            raise fail(f"bundle {bundle_id!r} names {foreign}, not in session {session_id!r}")
        try:
            bundle = Bundle(item_ids, intents.get(bundle_id, "").strip())
        except DataError as error:
            problem, hint = f"bundle {bundle_id!r}: {error.problem}", "fix or remove this bundle"
            raise fail(problem, hint=hint) from None
        bundles.setdefault(session_id, []).append(bundle)
    return bundles
