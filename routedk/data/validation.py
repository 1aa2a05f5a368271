"""Validate user records against pydantic types; errors name file, line, place and value."""

import re
from decimal import Decimal
from numbers import Real
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
    context: object = None,
) -> _Checked:
    """Validate a value and return it as its type.

    Args:
        kind: The type it must have.
        value: From JSON or Parquet.
        path: File named in the error.
        line: Its line, counted from 1.
        about: What the value is, e.g. ``session '7'``; the place inside it follows.
        hint: What to do about an error.
        context: Passed to the validators of the type.

    Raises:
        DataError: It is not of this type; names the first error, list positions counted from 1.
    """
    try:
        return kind.validate_python(value, context=context)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(step + 1 if isinstance(step, int) else step) for step in fault["loc"])
        found = "" if fault["type"] == "missing" else f", found {shown(fault['input'])}"
        message = fault["msg"].removeprefix("Value error, ")
        # Our class names mean nothing to the author of the file.
        message = re.sub(r" or (an )?instance of \w+", "", message)
        problem = ": ".join(filter(None, (about, place, message + found)))
        raise DataError(problem, path=path, line=line, hint=hint) from None


def as_number(value: object) -> Any:
    """A number, NumPy's included, as a Python number; None for anything else, bools included."""
    # Most values are strings, and the check for numbers is slow.
    if isinstance(value, str | bool) or not isinstance(value, Real | Decimal):
        return None
    return value.item() if hasattr(value, "item") else value


def _as_id(value: object) -> object:
    number = as_number(value)
    # NaN is not less than anything.
    if number is not None and abs(number) < 1e40 and number == int(number):
        return str(int(number))
    value = value.decode() if isinstance(value, bytes) else value
    if not isinstance(value, str) or not value.strip():
        raise ValueError("an id is a text that is not empty, or a whole number")
    return value


def _encodable(text: str) -> str:
    """The text; a lone surrogate, which no file can hold, raises an encoding error."""
    text.encode()
    return text


Id = Annotated[str, BeforeValidator(_as_id), AfterValidator(_encodable)]
"""An id as text; files may hold it as a whole number or as bytes."""

Text = Annotated[
    str,
    BeforeValidator(lambda value: "" if value is None else value),
    AfterValidator(_encodable),
]
"""A text that may be null."""


def shown(value: object) -> str:
    """A value as shown in an error; a long one is truncated."""
    text = ascii(value[:60] if isinstance(value, str | bytes | list | tuple) else value)
    return text if len(text) <= 60 else text[:57] + "..."
