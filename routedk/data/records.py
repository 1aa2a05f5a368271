"""The native session record: a plain dict on one side, a Session on the other."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from routedk.data.validation import Id, Text, checked
from routedk.errors import DataError
from routedk.types import Bundle, Item, Kind, Session, Share

_HINT = "fix or remove this session"


class _Item(BaseModel):
    id: Id
    title: Text = ""
    categories: list[Text] | None = None
    price: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None


class BundleRecord(BaseModel):
    """A bundle as files hold it."""

    items: list[Id]
    intent: Text = ""
    kind: Kind | None = None
    why: Text = ""
    confidence: Share | None = None
    kind_confidence: Share | None = None

    def bundle(self) -> Bundle:
        """The bundle.

        Raises:
            DataError: It has fewer than two items, or an item twice.
        """
        return Bundle(tuple(self.items), **self.model_dump(exclude={"items"}))


class _Session(BaseModel):
    session_id: Id
    items: list[_Item]
    bundles: list[BundleRecord] | None = None


_RECORD = TypeAdapter(_Session)


def session_from_record(
    record: Mapping[str, Any], *, path: str | Path | None = None, line: int | None = None
) -> Session:
    """Make a session from its native record; unknown keys are ignored.

    Args:
        record: ``{"session_id", "items": [{"id", "title", "categories", "price"}], "bundles":
            [{"items": [ids], "intent"}]}``; all but ``session_id``, ``items`` and their ``id`` may
            be missing or null. Ids may be whole numbers.
        path: File named in error messages.
        line: Line (or row) of the record, counted from 1.

    Raises:
        DataError: A key is missing, a value has the wrong type, or the session is not valid.
    """
    name = record.get("session_id")
    about = f"session {str(name)!r}" if isinstance(name, str | int) else ""
    read = checked(_RECORD, dict(record), path=path, line=line, about=about, hint=_HINT)
    try:
        items = (
            Item(item.id, item.title, tuple(item.categories or ()), item.price)
            for item in read.items
        )
        bundles = [bundle.bundle() for bundle in read.bundles or ()]
        return Session(
            read.session_id, tuple(items), None if read.bundles is None else tuple(bundles)
        )
    except DataError as error:
        raise DataError(error.problem, path=path, line=line, hint=_HINT) from None


def sessions_from_records(
    records: Iterable[tuple[int, Mapping[str, Any]]], *, path: str | Path
) -> Iterator[Session]:
    """Sessions from numbered native records, ids distinct, one at a time.

    Raises:
        DataError: As `session_from_record`, or an id comes twice, or there is no record.
    """
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
        yield session
    if not lines:
        raise DataError("holds no session", path=path, hint="expected one session per line")


def session_to_record(session: Session) -> dict[str, Any]:
    """Make the native record of a session; unknown values are left out."""
    items = []
    for item in session.items:
        record: dict[str, Any] = {"id": item.id, "title": item.title}
        if item.categories:
            record["categories"] = list(item.categories)
        if item.price is not None:
            record["price"] = item.price
        items.append(record)
    annotated = {} if session.bundles is None else {"bundles": bundle_records(session.bundles)}
    return {"session_id": session.id, "items": items, **annotated}


def bundle_records(bundles: Iterable[Bundle]) -> list[dict[str, Any]]:
    """The native records of bundles; what is not known of one is left out."""
    records = []
    for bundle in bundles:
        record: dict[str, Any] = {"items": list(bundle.item_ids), "intent": bundle.intent}
        for name in ("kind", "kind_confidence", "confidence", "why"):
            if getattr(bundle, name) not in (None, ""):
                record[name] = getattr(bundle, name)
        records.append(record)
    return records
