"""The native session record: a plain dict on one side, a Session on the other."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from routedk.errors import DataError
from routedk.types import Bundle, Item, Session


def session_from_record(
    record: Mapping[str, Any], *, path: str | Path | None = None, line: int | None = None
) -> Session:
    """A session from its native record; unknown keys are passed over.

    Args:
        record: ``{"session_id", "items": [{"id", "title", "categories", "price"}], "bundles":
            [{"items": [ids], "intent"}]}``; all but ``session_id``, ``items`` and their ``id`` may
            be missing or null. Ids may be whole numbers.
        path: File named in error messages.
        line: Line (or row) of the record, counted from 1.

    Raises:
        DataError: When a key is missing, a value has the wrong type, or the session is not valid.
    """
    try:
        return _session(record)
    except DataError as error:
        hint = error.hint or "mend or remove this session"
        raise DataError(error.problem, path=path, line=line, hint=hint) from None


def sessions_from_records(
    records: Iterable[tuple[int, Mapping[str, Any]]], *, path: str | Path
) -> list[Session]:
    """Sessions from numbered native records, ids distinct.

    Raises:
        DataError: As ``session_from_record``, or when an id comes twice or there is no record.
    """
    sessions: list[Session] = []
    lines: dict[str, int] = {}
    for line, record in records:
        session = session_from_record(record, path=path, line=line)
        if session.id in lines:
            raise DataError(
                f"session id {session.id!r} came before, on line {lines[session.id]}",
                path=path,
                line=line,
                hint="give every session its own id",
            )
        lines[session.id] = line
        sessions.append(session)
    if not sessions:
        raise DataError("holds no session", path=path, hint="expected one session a line")
    return sessions


def session_to_record(session: Session) -> dict[str, Any]:
    """The native record of a session; what is unknown is left out."""
    record: dict[str, Any] = {
        "session_id": session.id,
        "items": [_item_record(i) for i in session.items],
    }
    if session.bundles is not None:
        record["bundles"] = [
            {"items": list(bundle.item_ids), "intent": bundle.intent} for bundle in session.bundles
        ]
    return record


def _item_record(item: Item) -> dict[str, Any]:
    record: dict[str, Any] = {"id": item.id, "title": item.title}
    if item.categories:
        record["categories"] = list(item.categories)
    if item.price is not None:
        record["price"] = item.price
    return record


def _session(record: Mapping[str, Any]) -> Session:
    session_id = _id(record, "session_id", "the session")
    where = f"session {session_id!r}"
    items = tuple(
        _item(_object(value, f"{where}: item {number}"), f"{where}: item {number}")
        for number, value in enumerate(_list(record, "items", where, required=True) or (), start=1)
    )
    bundles = _list(record, "bundles", where)
    if bundles is None:
        return Session(session_id, items)
    return Session(
        session_id,
        items,
        tuple(
            _bundle(_object(value, f"{where}: bundle {number}"), f"{where}: bundle {number}")
            for number, value in enumerate(bundles, start=1)
        ),
    )


def _item(record: Mapping[str, Any], where: str) -> Item:
    categories = _list(record, "categories", where) or ()
    return Item(
        id=_id(record, "id", where),
        title=_text(record.get("title"), "title", where),
        categories=tuple(_text(name, "category", where) for name in categories),
        price=_price(record.get("price"), where),
    )


def _bundle(record: Mapping[str, Any], where: str) -> Bundle:
    ids = _list(record, "items", where, required=True) or ()
    return Bundle(
        tuple(_id({"item id": value}, "item id", where) for value in ids),
        _text(record.get("intent"), "intent", where),
    )


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        _wrong(where, "it", value, "an object")
    return value


def _id(record: Mapping[str, Any], key: str, where: str) -> str:
    if key not in record:
        raise DataError(f"{where} has no key {key!r}", hint=f"add {key!r}")
    value = record[key]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        _wrong(where, key, value, "a text that is not empty, or a whole number")
    return _text(value, key, where)


def _list(
    record: Mapping[str, Any], key: str, where: str, *, required: bool = False
) -> list[Any] | None:
    if required and key not in record:
        raise DataError(f"{where} has no key {key!r}", hint=f"add {key!r}")
    value = record.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, list):
        _wrong(where, key, value, "a list")
    return value


def _text(value: object, key: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        _wrong(where, key, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        _wrong(where, key, value, "a text without half surrogate pairs")
    return value


def _price(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(where, "price", value, "a number, or null where unknown")
    try:
        price = float(value)
    except OverflowError:
        price = math.inf
    if not math.isfinite(price) or price < 0:
        _wrong(where, "price", value, "a finite number of at least 0, or null where unknown")
    return price


def _wrong(where: str, key: str, value: object, wanted: str) -> NoReturn:
    shown = ascii(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise DataError(f"{where}: {key} is {shown}", hint=f"it must be {wanted}")
