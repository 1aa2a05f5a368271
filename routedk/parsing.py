"""Parse JSON and JSONL into values that are safe to use: depth, numbers and text are checked.

What the formats allow but later code cannot handle is rejected here, with file and line.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from routedk.errors import DataError

MAX_BYTES = 1 << 28
"""Maximum size of a document, or of a line of JSONL, in bytes."""
_MAX_DEPTH = 64
_MAX_BITS = 128


def decode(raw: bytes, *, path: str | Path, line: int = 1) -> str:
    """Decode a UTF-8 document, or one line of it, to text without a byte order mark.

    Raises:
        DataError: There are more than `MAX_BYTES`, or they are not UTF-8.
    """
    if len(raw) > MAX_BYTES:
        problem = f"more than {MAX_BYTES >> 20} MiB in one document or line"
        raise DataError(problem, path=path, line=line, hint="is it the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        line += raw.count(b"\n", 0, error.start)
        raise DataError(problem, path=path, line=line, hint="save the file as UTF-8") from None


def parse_jsonl(
    lines: Iterable[bytes], *, path: str | Path, lenient: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSONL lines from any source, e.g. ``sys.stdin.buffer``, one at a time.

    Args:
        lines: Lines with or without their line endings.
        path: Name of the source in error messages, e.g. ``<stdin>``.
        lenient: As for `parse_json`.

    Raises:
        DataError: A line is not UTF-8, not a JSON object, or too long.
    """
    for number, record in scan_jsonl(lines, path=path, lenient=lenient):
        if isinstance(record, DataError):
            raise record
        yield number, record


def scan_jsonl(
    lines: Iterable[bytes], *, path: str | Path, lenient: bool = False
) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """Like `parse_jsonl`, but yield the error of an unreadable line and go on with the next.

    Raises:
        DataError: A line is too long.
    """
    for number, raw in enumerate(lines, start=1):
        try:
            if not (text := decode(raw, path=path, line=number).strip()):
                continue
            record = parse_json(text, path=path, line=number, lenient=lenient)
            if not isinstance(record, dict):
                problem = f"expected a JSON object, found {type(record).__name__}"
                hint = "JSONL holds one object {...} a line"
                raise DataError(problem, path=path, line=number, hint=hint)
        except DataError as error:
            if len(raw) > MAX_BYTES:
                raise
            yield number, error
        else:
            yield number, record


def parse_json(
    text: str, *, path: str | Path, line: int | None = None, lenient: bool = False
) -> object:
    """The value of a JSON text.

    Args:
        text: The JSON.
        path: Name of the source in error messages.
        line: Line the text is on; None for a whole file.
        lenient: Accept NaN, long numbers and lone surrogates, for a caller that validates each
            value itself.

    Raises:
        DataError: It is not JSON, is nested too deeply, or has a number that is too long or a
            value that this package could not write back.
    """
    try:
        value: object = (_LENIENT if lenient else _STRICT).decode(text)
        # There are many sessions, and few lines have enough brackets to be too deep.
        if not lenient or text.count("[") + text.count("{") > _MAX_DEPTH:
            check_value(value, lenient=lenient)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at column {error.colno}"
        line = error.lineno if line is None else line
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as error:
        problem = str(error)
    else:
        return value
    raise DataError(f"invalid JSON: {problem}", path=path, line=line, hint="fix or remove it")


def check_value(value: object, *, lenient: bool = False) -> None:
    """Check a parsed value for what later code cannot handle.

    Args:
        value: Made of dicts, lists, strings and numbers.
        lenient: Check only the depth.

    Raises:
        ValueError: It is nested too deeply, or has a number that is too long or not finite, or a
            lone surrogate.
    """
    level = [value]
    for _ in range(_MAX_DEPTH):
        deeper: list[object] = []
        for one in level:
            if isinstance(one, dict):
                deeper += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                deeper += one
            elif lenient:
                continue
            elif isinstance(one, int) and one.bit_length() > _MAX_BITS:
                raise ValueError(f"a number of more than {_MAX_BITS} bits")
            elif isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"{one} is not a number that a file may hold")
            elif isinstance(one, str):
                one.encode()
        if not deeper:
            return
        level = deeper
    raise ValueError(f"nested more than {_MAX_DEPTH} deep")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number; use null where a value is unknown")


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant)
_LENIENT = json.JSONDecoder()
