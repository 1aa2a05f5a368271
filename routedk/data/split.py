"""Splitting sessions: by a given file, or seeded 7:1:2."""

import random
from collections.abc import Sequence
from typing import Literal, get_args

from routedk.data.load import DataOptions
from routedk.data.split_file import PARTS, Part, check_split_ids, read_split_file
from routedk.errors import SettingError
from routedk.types import Session

SplitName = Literal["train", "val", "test", "all"]


def split_sessions(
    sessions: Sequence[Session], options: DataOptions | None = None
) -> dict[Part, list[Session]]:
    """Split sessions, in the order of the split file or in their own order.

    Without a split file, all sessions, with or without gold, are shuffled by the seed and split
    7:1:2; neither their order in the file nor the platform matters. With one, sessions that it
    does not name are in no split.

    Raises:
        DataError: The split file is broken or names sessions that do not exist.

    Example:
        >>> from routedk import load_sessions, split_sessions
        >>> {part: len(some) for part, some in split_sessions(load_sessions("demo")).items()}
        {'train': 210, 'val': 30, 'test': 60}
    """
    options = options or DataOptions()
    if options.split_file is None:
        part_of = _seeded(sessions, options.seed)
        return {
            part: [session for session in sessions if part_of[session.id] == part] for part in PARTS
        }
    ids = read_split_file(options.split_file)
    by_id = {session.id: session for session in sessions}
    # With "drop", whole sessions may be gone; load_sessions checked the ids before that.
    if options.untitled == "keep":
        check_split_ids(ids, by_id.keys(), options.split_file)
    return {part: [by_id[name] for name in ids[part] if name in by_id] for part in PARTS}


def select_split(
    sessions: Sequence[Session], options: DataOptions, split: SplitName
) -> list[Session]:
    """Take the sessions of one split; ``all`` is every session.

    Raises:
        DataError: As `split_sessions`.
        SettingError: There is no such split.
    """
    if split not in get_args(SplitName):
        raise SettingError(
            f"split is {split!r}: it must be one of {', '.join(get_args(SplitName))}"
        )
    return list(sessions) if split == "all" else split_sessions(sessions, options)[split]


def _seeded(sessions: Sequence[Session], seed: int) -> dict[str, Part]:
    ids = sorted(session.id for session in sessions)
    random.Random(seed).shuffle(ids)
    first, second = round(len(ids) * 0.7), round(len(ids) * 0.8)
    return {
        name: "train" if place < first else "val" if place < second else "test"
        for place, name in enumerate(ids)
    }
