"""Records of a user's file against pydantic types; errors name file, line, place and value."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError

from routedk.errors import DataError

_Checked = TypeVar("_Checked")


def checked(
    kind: TypeAdapter[_Checked],
    value: object,
    *,
    path: str | Path | None,
    line: int | None = None,
    about: str = "",
    hint: str = "fix or remove this line",
) -> _Checked:
    """Validate a value and return it as its type.

    Args:
        kind: The type it must have.
        value: From JSON or Parquet.
        path: File named in the error.
        line: Its line, counted from 1.
        about: What the value is, e.g. ``session '7'``; the place inside it follows.
        hint: What to do about an error.

    Raises:
        DataError: It is not of this type; the first fault is named, list places counted from 1.
    """
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(step + 1 if isinstance(step, int) else step) for step in fault["loc"])
        found = "" if fault["type"] == "missing" else f", found {_shown(fault['input'])}"
        message = fault["msg"].removeprefix("Value error, ")
        problem = ": ".join(filter(None, (about, place, message + found)))
        raise DataError(problem, path=path, line=line, hint=hint) from None


def _as_id(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError("an id is a text that is not empty, or a whole number")
    return value


def _encodable(text: str) -> str:
    """The text; half a surrogate pair, which no file can hold, is an encoding error."""
    text.encode()
    return text


Id = Annotated[str, BeforeValidator(_as_id), AfterValidator(_encodable)]
"""An id as text; files may hold whole numbers."""

Text = Annotated[
    str,
    BeforeValidator(lambda value: "" if value is None else value),
    AfterValidator(_encodable),
]
"""A text that may be null."""


def _shown(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
