"""The native session record: a plain dict on one side, a Session on the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationInfo

from routedk.data.validation import Id, checked
from routedk.data.values import MissingValues, as_categories, as_image, as_list, as_price, as_text
from routedk.errors import DataError, one_line
from routedk.types import Bundle, Item, Kind, Session, Share

_HINT = "fix or remove this session"

Rows: TypeAlias = Iterable[tuple[str | Path, int, Mapping[str, Any] | DataError]]
"""File, line and content of each record; if it could not be read, the error instead."""


@dataclass(frozen=True, slots=True)
class UnreadSession:
    """A session that cannot be read, in its position among the others.

    Args:
        id: Its id, or its position if it has none, e.g. ``line 7``.
        error: Why it cannot be read, with file and line.
    """

    id: str
    error: DataError


def _missing(info: ValidationInfo) -> MissingValues:
    return info.context if isinstance(info.context, MissingValues) else MissingValues()


def _read(read: Callable[[Any, MissingValues], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value, info: read(value, _missing(info)))


_Text = Annotated[
    str, BeforeValidator(lambda value, info: as_text(value, info.field_name, _missing(info)))
]
Reasons = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda v: [t for t in v if isinstance(t, str)] if isinstance(v, list) else ()),
]
"""The strings of a list; anything else that another system writes here is ignored."""


class ItemRecord(BaseModel):
    """An item as stored in files."""

    id: Id
    title: _Text = ""
    categories: Annotated[tuple[str, ...], _read(as_categories)] = ()
    price: Annotated[float | None, _read(as_price)] = None
    image: Annotated[str | None, BeforeValidator(as_image)] = None


class BundleRecord(BaseModel):
    """A bundle as stored in files."""

    items: Annotated[list[Id], BeforeValidator(as_list)]
    intent: _Text = ""
    kind: Kind | None = None
    why: _Text = ""
    confidence: Share | None = None
    kind_confidence: Share | None = None
    changed: Reasons = ()

    def bundle(self) -> Bundle:
        """The bundle.

        Raises:
            DataError: It has fewer than two items, or an item twice.
        """
        return Bundle(tuple(self.items), **self.model_dump(exclude={"items"}))


class _Session(BaseModel):
    session_id: Id
    items: Annotated[list[ItemRecord], BeforeValidator(as_list)]
    bundles: Annotated[list[BundleRecord] | None, BeforeValidator(as_list)] = None


_RECORD = TypeAdapter(_Session)


def session_from_record(
    record: Mapping[str, Any],
    *,
    path: str | Path | None = None,
    line: int | None = None,
    missing: MissingValues | None = None,
) -> Session:
    """Make a session from its native record; unknown keys are ignored.

    Args:
        record: ``{"session_id", "items": [{"id", "title", "categories", "price", "image"}],
            "bundles": [{"items": [ids], "intent"}]}``; all but ``session_id``, ``items`` and their
            ``id`` may be missing or null. Ids may be whole numbers, prices and categories text.
        path: File named in error messages.
        line: Line (or row) of the record, counted from 1.
        missing: Counts the values that cannot be read; None to skip counting.

    Raises:
        DataError: A key is missing, an id or a list has the wrong type, or the session is not
            valid.
    """
    name = record.get("session_id")
    about = f"session {str(name)[:40]!r}" if isinstance(name, str | int) else ""
    found = missing or MissingValues()
    found.place = f"{path}:{line}" if line is not None else str(path or about)
    read = checked(
        _RECORD, dict(record), path=path, line=line, about=about, hint=_HINT, context=found
    )
    try:
        items = (Item(**dict(item)) for item in read.items)
        bundles = [bundle.bundle() for bundle in read.bundles or ()]
        return Session(
            read.session_id, tuple(items), None if read.bundles is None else tuple(bundles)
        )
    except DataError as error:
        raise DataError(error.problem, path=path, line=line, hint=_HINT) from None


def sessions_from_records(
    rows: Rows, *, path: str | Path, missing: MissingValues
) -> Iterator[Session | UnreadSession]:
    """Yield sessions with distinct ids from native records.

    Args:
        rows: The records.
        path: Name of the whole source in errors.
        missing: Counts the values that cannot be read.

    Raises:
        DataError: There is no record.
    """
    places: dict[str, str] = {}
    count = 0
    for file, line, record in rows:
        count += 1
        try:
            if isinstance(record, DataError):
                raise record
            session = session_from_record(record, path=file, line=line, missing=missing)
            if (before := places.setdefault(session.id, f"{file}:{line}")) != f"{file}:{line}":
                problem, hint = f"session id {session.id!r} came before", "give each its own id"
                raise DataError(f"{problem}, in {before}", path=file, line=line, hint=hint)
            yield session
        except DataError as error:
            given = None if isinstance(record, DataError) else record.get("session_id")
            named = isinstance(given, str | int) and str(given).strip()
            yield UnreadSession(one_line(str(given), 100) if named else f"line {line}", error)
    if not count:
        raise DataError("holds no session", path=path, hint="expected one session per line")


def readable(sessions: Iterable[Session | UnreadSession]) -> Iterator[Session]:
    """Yield the sessions, all of which must be readable.

    Raises:
        DataError: One of them is not.
    """
    for session in sessions:
        if isinstance(session, UnreadSession):
            raise session.error
        yield session


def session_to_record(session: Session, *, images: bool = False) -> dict[str, Any]:
    """Make the native record of a session; unknown values are left out.

    Args:
        session: The session.
        images: Whether to include the URLs of pictures, which no answer depends on.
    """
    items = []
    for item in session.items:
        image = item.image if images else None
        more = _known(categories=list(item.categories), price=item.price, image=image)
        items.append({"id": item.id, "title": item.title, **more})
    annotated = {} if session.bundles is None else {"bundles": bundle_records(session.bundles)}
    return {"session_id": session.id, "items": items, **annotated}


def bundle_records(bundles: Iterable[Bundle]) -> list[dict[str, Any]]:
    """The native records of bundles; unknown values are left out."""
    records = []
    for bundle in bundles:
        more = {n: getattr(bundle, n) for n in ("kind", "kind_confidence", "confidence", "why")}
        more["changed"] = list(bundle.changed)
        if (found := bundle.explanation) is not None:
            more["ties"] = list(found.ties)
            more |= {n: getattr(found, n) for n in ("rule", "similar", "similar_intent")}
        head = {"items": list(bundle.item_ids), "intent": bundle.intent}
        records.append(head | _known(**more))
    return records


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", [])}
