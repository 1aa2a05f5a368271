"""Split files: JSON of session ids by split."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from routedk.data.validation import Id, checked
from routedk.errors import DataError
from routedk.files import read_json
from routedk.types import Session

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
_OTHER_NAMES = dict.fromkeys(("valid", "validation", "dev"), "val")
_SPLITS = TypeAdapter(dict[str, list[Id]])
_HINT = 'expected {"train": [ids], "val": [ids], "test": [ids]}'


def read_split_file(path: str | Path) -> dict[Part, list[str]]:
    """The session ids of a split file by split.

    Raises:
        DataError: It is not an object of id lists with known names, or an id comes twice.
    """
    given = checked(_SPLITS, read_json(path), path=path, hint=_HINT)
    named = {_OTHER_NAMES.get(name, name): ids for name, ids in given.items()}
    if len(given) != len(PARTS) or set(named) != set(PARTS):
        raise DataError(f"the splits are {', '.join(given)}", path=path, hint=_HINT)
    parts = {part: named[part] for part in PARTS}
    seen: dict[str, Part] = {}
    for part, ids in parts.items():
        for session_id in ids:
            if session_id in seen:
                raise DataError(
                    f"session {session_id!r} is in {seen[session_id]} and in {part}",
                    path=path,
                    hint="a session belongs to one split, once",
                )
            seen[session_id] = part
    return parts


def check_split_ids(
    parts: dict[Part, list[str]], sessions: Iterable[Session], path: str | Path
) -> None:
    """Check that every session a split file names exists.

    Raises:
        DataError: Some do not; it names the first five.
    """
    known = {session.id for session in sessions}
    unknown = [name for part in PARTS for name in parts[part] if name not in known]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DataError(
            f"names {len(unknown)} sessions that do not exist: {shown}",
            path=path,
            hint="use the split file of this data set",
        )
