"""A program as a tool that an agent calls: the inputs and outputs of every such tool."""

import json
from collections.abc import Iterable
from typing import Any

import dspy
from pydantic import BaseModel

from routedk.data.records import session_from_record
from routedk.errors import AnswerError, DataError, RouteDKError, one_line
from routedk.types import Bundle, Kind, Session

DESCRIPTION = (
    "Group a shopper's items into bundles that belong together, each with the intent that ties its "
    "items. A bundle's kind is complements (bought together), alternatives (compared to choose "
    "one) or mixed; its confidence is from 0 to 1. An item in no bundle belongs with no other."
)
_ITEM = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "id": {"type": ["string", "integer"]},
        "price": {"type": ["number", "string"]},
        "categories": {"type": ["array", "string"], "items": {"type": "string"}},
    },
    "required": ["title"],
}
# With no "type" here, DSPy checks nothing before the call; an agent would get its errors as
# tracebacks.
ITEMS: dict[str, Any] = {
    "description": "The items, each with its title; id, price and categories may be left out.",
    "anyOf": [{"type": "array", "items": _ITEM}],
}
NOTHING = "No items belong together."


class ToldItem(BaseModel):
    """An item: its id, or # and its position if it was given no id, and its title."""

    id: str
    title: str


class ToldBundle(BaseModel):
    """Items that belong together, and the intent that ties them."""

    items: list[ToldItem]
    intent: str
    kind: Kind | None = None
    confidence: float | None = None


def bundle_tool(program: Any, name: str = "bundle_items") -> dspy.Tool:
    """Turn a program into a tool for an agent: a shopper's items in, their bundles out.

    The tool takes what shops have: ``items`` with a title and optionally an id, a price and
    categories. It returns a list of bundles, each with its ``items`` (id, or ``#`` and position,
    and title), ``intent`` and, if known, ``kind`` and ``confidence``; or a sentence that says that
    no items belong together, or what to change before the next call.

    Args:
        program: A `BundleGenerator`, or any program that takes ``session=`` and answers with
            ``bundles``. It keeps its language model while the agent uses another.
        name: The tool's name.

    Example:
        >>> from routedk import BundleGenerator, bundle_tool
        >>> tool = bundle_tool(BundleGenerator())
        >>> tool(items=[])
        'items must be a list of at least one item, e.g. [{"title": "Red kettle"}]'
    """

    def bundle_items(items: Any = None, **others: Any) -> list[dict[str, Any]] | str:
        try:
            session = read_items(items, others)
            found = program(session=session)
            return told(found.bundles, found.get("error"), session) or NOTHING
        except (DataError, AnswerError) as error:
            return mistake(error)

    args = {"items": ITEMS}
    return dspy.Tool(bundle_items, name, DESCRIPTION, args=args, arg_types={"items": Any})


def read_items(items: Any, others: Iterable[str] = ()) -> Session:
    """A tool's items as a session; items without an id get ``#`` and their position as one.

    Args:
        items: What an agent passed as items.
        others: Names of arguments that the tool does not have.

    Raises:
        DataError: No items, one without a title, a duplicate id, or an unknown argument.
    """
    if unknown := ", ".join(others):
        raise DataError(f"There is no argument {unknown}: leave it out.")
    items = _listed(items)
    if not isinstance(items, list) or not items:
        raise DataError('items must be a list of at least one item, e.g. [{"title": "Red kettle"}]')
    places: dict[str, int] = {}
    records = []
    for place, item in enumerate(items, start=1):
        given = {"title": item} if isinstance(item, str) else item
        title = given.get("title") if isinstance(given, dict) else None
        if not isinstance(title, str | int | float) or not str(title).strip():
            raise DataError(f"item {place} has no title: give every item a title")
        own = given.get("id")
        known = f"#{place}" if own is None or not str(own).strip() else str(own)
        if places.setdefault(known, place) != place:
            same = f"items {places[known]} and {place} have the same id {known!r}"
            raise DataError(f"{same}: give every item an id of its own, or none")
        more = {name: given[name] for name in ("categories", "price") if given.get(name)}
        records.append({"id": known, "title": title, **more})
    return session_from_record({"session_id": "items", "items": records})


def told(bundles: Iterable[Bundle], error: str | None, session: Session) -> list[dict[str, Any]]:
    """Bundles as an agent reads them; unknown fields are left out.

    Raises:
        AnswerError: The program's answer could not be read.
    """
    if error:
        raise AnswerError(f"The items could not be bundled: {error}")
    found = []
    for bundle in bundles:
        items = [told_item(session, name) for name in bundle.item_ids]
        about = {name: getattr(bundle, name) for name in ("intent", "kind", "confidence")}
        found.append(ToldBundle(items=items, **about).model_dump(exclude_none=True))
    return found


def told_item(session: Session, name: str) -> ToldItem:
    """An item as an agent reads it.

    Raises:
        DataError: The session has no such item.
    """
    return ToldItem(id=name, title=session.item(name).title)


def read_ids(ids: Any) -> list[str]:
    """The ids of a tool's items.

    Raises:
        DataError: There are fewer than two.
    """
    ids = _listed(ids)
    if not isinstance(ids, list) or len(ids) < 2:
        raise DataError('item_ids must be a list of at least two ids, e.g. ["#1", "#2"]')
    return list(map(str, ids))


def _listed(value: Any) -> Any:
    """The value; a string is parsed as JSON, and gives None if it is invalid."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


def mistake(error: RouteDKError) -> str:
    """An error as a sentence for an agent, without the file name."""
    return one_line(error.problem) if isinstance(error, DataError) else str(error)
