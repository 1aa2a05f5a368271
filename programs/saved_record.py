"""What is checked of every saved program before anything in it is used."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from routedk.errors import ArtifactError

_Model = TypeVar("_Model", bound=BaseModel)


def checked_record(
    record: object,
    path: str | Path,
    model: type[_Model],
    *,
    kind: str,
    version: int,
    what: str,
    writer: str,
    remedy: str,
) -> _Model:
    """A record as its model.

    Args:
        record: What the file holds.
        path: The file, for messages.
        model: The layout of such records.
        kind: What ``kind`` must be.
        version: What ``schema_version`` must be.
        what: What such a record is, with its article, for messages.
        writer: What writes such files, for messages.
        remedy: What to do about one of another version, for messages.

    Raises:
        ArtifactError: It is of another kind or version, or damaged.
    """
    found = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(record, dict) or found != kind:
        raise ArtifactError(
            f"{path}: not {what}: its kind is {found!r}, not {kind!r} (name a file that {writer} "
            "wrote)"
        )
    if record.get("schema_version") != version:
        raise ArtifactError(
            f"{path}: schema version {record.get('schema_version')!r}, this version of routedk "
            f"reads {version} ({remedy})"
        )
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path}: the program is damaged: {place}: {first['msg']}") from None
