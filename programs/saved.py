"""What the files of saved programs have in common."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from routedk.data.records import session_to_record
from routedk.errors import ArtifactError, DataError
from routedk.files import read_json
from routedk.programs.prompting.layout import layout_hash
from routedk.types import Item, Session

SCHEMA_VERSION = 1


class Record(BaseModel):
    """A part of such a file: nothing else may stand in it."""

    model_config = ConfigDict(extra="forbid", strict=True)


_Model = TypeVar("_Model", bound=Record)


def read_saved(
    path: str | Path, model: type[_Model], *, kind: str, what: str, remedy: str
) -> _Model:
    """Read a file, its kind, version and values checked.

    Args:
        path: The file.
        model: The layout of such files.
        kind: What ``kind`` must be.
        what: What such a file holds, with its article, and who writes it.
        remedy: What to do about one of another version.

    Raises:
        ArtifactError: The file is missing, damaged, or of another kind or version.
    """
    try:
        record = read_json(path)
    except DataError as error:
        raise ArtifactError(str(error)) from None
    found = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(record, dict) or found != kind:
        raise ArtifactError(f"{path}: not {what}: its kind is {found!r}, not {kind!r}")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {record.get('schema_version')!r}, this version of routedk "
            f"reads {SCHEMA_VERSION} ({remedy})"
        )
    try:
        # As JSON: strict pydantic takes lists for tuples and objects for dataclasses only there.
        return model.model_validate_json(json.dumps(record))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path}: the program is damaged: {place}: {first['msg']}") from None


def check_layout(path: str | Path, saved: str, current: str, remedy: str) -> None:
    """Refuse a program that was saved under another prompt layout.

    Raises:
        ArtifactError: It was.
    """
    if saved != current:
        raise ArtifactError(
            f"{path}: saved under prompt layout {saved}, this version renders {layout_hash()} "
            f"({remedy})"
        )


def shown_session(session: Session) -> dict[str, Any]:
    """The record of a session with what a prompt shows of it: titles and gold."""
    items = tuple(Item(id=item.id, title=item.title) for item in session.items)
    return session_to_record(Session(session.id, items, session.bundles))
