"""`bundle_tool`: a program as a tool that an agent calls."""

import json
from typing import Any

import dspy

from routedk.data.records import session_from_record
from routedk.errors import DataError
from routedk.types import Bundle, Session

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
# Without a "type" of its own DSPy checks nothing before the call, whose errors an agent reads as
# tracebacks.
_ITEMS = {
    "description": "The items, each with its title; id, price and categories may be left out.",
    "anyOf": [{"type": "array", "items": _ITEM}],
}


def bundle_tool(program: Any, name: str = "bundle_items") -> dspy.Tool:
    """Make a program a tool for an agent: a shopper's items in, their bundles out.

    The tool takes what shops have: ``items`` with a title, and perhaps an id, a price and
    categories. It returns a list of bundles, each with its ``items`` (id, or ``#`` and its place,
    and title), ``intent`` and where they are known ``kind`` and ``confidence``; or a sentence: that
    no items belong together, or what to change before the next call.

    Args:
        program: A `BundleGenerator`, or any program that takes ``session=`` and answers with
            ``bundles``. It keeps its language model while the agent uses another.
        name: Of the tool.

    Example:
        >>> from routedk import BundleGenerator, bundle_tool
        >>> tool = bundle_tool(BundleGenerator())
        >>> tool(items=[])
        'items must be a list of at least one item, e.g. [{"title": "Red kettle"}]'
    """

    def bundle_items(items: Any = None, **others: Any) -> list[dict[str, Any]] | str:
        """Group a shopper's items into bundles that belong together, each with its intent."""
        if others:
            return f"There is no argument {', '.join(others)}: items is the only one."
        try:
            session = _session(items)
        except DataError as error:
            return error.problem
        found = program(session=session)
        if found.get("error"):
            return f"The items could not be bundled: {found.error}"
        return [_told(bundle, session) for bundle in found.bundles] or "No items belong together."

    return dspy.Tool(bundle_items, name=name, args={"items": _ITEMS}, arg_types={"items": Any})


def _session(items: Any) -> Session:
    """The items as a session; those without an id get their place as one.

    Raises:
        DataError: There are none, or one has no title or the id of another.
    """
    if isinstance(items, str):
        try:
            items = json.loads(items)
        except (ValueError, RecursionError):
            items = None
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
            raise DataError(
                f"items {places[known]} and {place} have the same id {known!r}: give every item an "
                "id of its own, or none"
            )
        more = {name: given[name] for name in ("categories", "price") if given.get(name)}
        records.append({"id": known, "title": title, **more})
    return session_from_record({"session_id": "items", "items": records})


def _told(bundle: Bundle, session: Session) -> dict[str, Any]:
    """A bundle as an agent reads it."""
    items = [{"id": name, "title": session.item(name).title} for name in bundle.item_ids]
    told = {"intent": bundle.intent, "kind": bundle.kind, "confidence": bundle.confidence}
    return {"items": items, **{name: value for name, value in told.items() if value is not None}}
