"""A search space in a TOML file: a dimension a line, those left out as they are by default.

Example::

    utilization = "ICL"                                  # fixed
    formats = ["none", "rule", "rule+thought"]           # narrowed
    rules = [0, 4, 32]                                   # extended
    ratio = { low = 0.1, high = 1.0, step = 0.1 }        # a range
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from routedk.errors import DataError
from routedk.files import read_text
from routedk.optimizers.search.dimensions import TAGS
from routedk.optimizers.search.space import SearchSpace


def read_space(path: str | Path) -> SearchSpace:
    """Read a search space.

    Raises:
        DataError: The file cannot be read, is not TOML, or has a key or a value that is not
            allowed; the message names file and key, quotes the value and says what is allowed.
    """
    try:
        values = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"not TOML: {error}", path=path, hint="mend it") from None
    try:
        return SearchSpace(**values)
    except ValidationError as error:
        problem, hint = _problem(error.errors()[0], values)
        raise DataError(problem, path=path, hint=hint) from None


def _problem(error: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[str, str]:
    place = [part for part in error["loc"] if part not in TAGS]
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "extra_forbidden" and len(place) == 1:
        return f"unknown key {place[0]!r}", f"allowed are {', '.join(SearchSpace.model_fields)}"
    if not place:
        return message, "see docs/search.md for what can be together"
    key, *inner = place
    name = ".".join([str(key), *(part for part in inner if isinstance(part, str))])
    value = error["input"] if inner else values[key]
    return f"{name} = {value!r}: {message}", f"mend {key}, or leave it out for the default"
