"""Splitting sessions: by a given file, or seeded 7:1:2."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from routedk.data.options import DataOptions, SplitName, check_split_name
from routedk.errors import DataError
from routedk.files import read_json
from routedk.types import Session

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
_NAMES: dict[str, Part] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}


def split_sessions(sessions: Sequence[Session], options: DataOptions) -> dict[Part, list[Session]]:
    """Sessions by split, in the order of the split file or in their own order.

    Without a split file all sessions, with gold or without, are shuffled by the seed and cut
    7:1:2; neither their order in the file nor the platform matters. With one, sessions that it
    does not name are in no split.

    Raises:
        DataError: When the split file is broken or names sessions that do not exist.
    """
    if options.split_file is None:
        part_of = _seeded(sessions, options.seed)
        return {
            part: [session for session in sessions if part_of[session.id] == part] for part in PARTS
        }
    ids = read_split_file(options.split_file)
    # Under "drop" whole sessions may be gone; load_sessions checked the ids before that.
    if options.untitled == "keep":
        check_split_ids(ids, sessions, options.split_file)
    by_id = {session.id: session for session in sessions}
    return {part: [by_id[name] for name in ids[part] if name in by_id] for part in PARTS}


def select_split(
    sessions: Sequence[Session], options: DataOptions, split: SplitName
) -> list[Session]:
    """The sessions of one split; ``all`` is every session.

    Raises:
        DataError: As ``split_sessions``.
        SettingError: When there is no such split.
    """
    name = check_split_name(split)
    if name == "all":
        return list(sessions)
    return split_sessions(sessions, options)[name]


def read_split_file(path: str | Path) -> dict[Part, list[str]]:
    """The session ids of a split file by split.

    Raises:
        DataError: When it is not an object of id lists with known names, or an id comes twice.
    """
    value = read_json(path)
    hint = 'expected {"train": [ids], "val": [ids], "test": [ids]}'
    if not isinstance(value, dict):
        raise DataError("not a split file", path=path, hint=hint)
    parts: dict[Part, list[str]] = {}
    seen: dict[str, Part] = {}
    for name, ids in value.items():
        if name not in _NAMES or _NAMES[name] in parts:
            raise DataError(f"unknown or repeated split {name!r}", path=path, hint=hint)
        if not isinstance(ids, list):
            raise DataError(f"split {name!r} is not a list", path=path, hint=hint)
        part = _NAMES[name]
        parts[part] = []
        for session_id in ids:
            if isinstance(session_id, bool) or not isinstance(session_id, str | int):
                raise DataError(
                    f"split {name!r} holds {session_id!r}, not a session id", path=path, hint=hint
                )
            if str(session_id) in seen:
                raise DataError(
                    f"session {str(session_id)!r} is in {seen[str(session_id)]} and in {part}",
                    path=path,
                    hint="a session belongs to one split, once",
                )
            seen[str(session_id)] = part
            parts[part].append(str(session_id))
    missing = [part for part in PARTS if part not in parts]
    if missing:
        raise DataError(f"no split {missing[0]!r}", path=path, hint=hint)
    return parts


def check_split_ids(
    ids: dict[Part, list[str]], sessions: Iterable[Session], path: str | Path
) -> None:
    """Check that every session a split file names is there.

    Raises:
        DataError: When some are not; it names the first five.
    """
    known = {session.id for session in sessions}
    unknown = [name for part in PARTS for name in ids[part] if name not in known]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DataError(
            f"names {len(unknown)} sessions that do not exist: {shown}",
            path=path,
            hint="use the split file of this data set",
        )


def _seeded(sessions: Sequence[Session], seed: int) -> dict[str, Part]:
    ids = sorted(session.id for session in sessions)
    random.Random(seed).shuffle(ids)
    first, second = round(len(ids) * 0.7), round(len(ids) * 0.8)
    return {
        name: "train" if place < first else "val" if place < second else "test"
        for place, name in enumerate(ids)
    }
