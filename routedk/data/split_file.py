"""Split files: JSON of session ids by split."""

from collections import Counter
from collections.abc import Set
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from routedk.data.validation import Id, checked
from routedk.errors import DataError
from routedk.files import read_json

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
_OTHER_NAMES = dict.fromkeys(("valid", "validation", "dev"), "val")
_SPLITS = TypeAdapter(dict[str, list[Id]])
_HINT = 'expected {"train": [ids], "val": [ids], "test": [ids]}'


def read_split_file(path: str | Path) -> dict[Part, list[str]]:
    """The session ids of a split file by split.

    Raises:
        DataError: It is not an object of id lists with known names, or an id occurs twice.
    """
    given = checked(_SPLITS, read_json(path), path=path, hint=_HINT)
    named = {_OTHER_NAMES.get(name, name): ids for name, ids in given.items()}
    if len(given) != len(PARTS) or set(named) != set(PARTS):
        raise DataError(f"the splits are {', '.join(given)}", path=path, hint=_HINT)
    parts = {part: named[part] for part in PARTS}
    [(name, count)] = Counter(chain([""], *parts.values())).most_common(1)
    if count > 1:
        places = " and in ".join(part for part in PARTS for one in parts[part] if one == name)
        hint = "a session belongs to one split, once"
        raise DataError(f"session {name!r} is in {places}", path=path, hint=hint)
    return parts


def check_split_ids(parts: dict[Part, list[str]], known: Set[str], path: str | Path) -> None:
    """Check that every session a split file names is known.

    Raises:
        DataError: Some are not; the message names the first five.
    """
    unknown = [name for part in PARTS for name in parts[part] if name not in known]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5]))
        problem = f"names {len(unknown)} sessions that do not exist: {shown}"
        raise DataError(problem, path=path, hint="use the split file of this data set")
