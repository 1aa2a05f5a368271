"""CSV as people and programs save it, and columns of BundleRec's tables."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import TypeVar

from routedk.data.validation import shown
from routedk.data.values import MissingValues
from routedk.errors import DataError
from routedk.files import open_file

Row = tuple[int, str, str]
Value = TypeVar("Value")
_SEPARATORS = ",;\t|"
_STATED = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
_LONGEST = 1 << 20
"""Characters of a line."""


def read_csv(
    path: str | Path, required: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str] | DataError]]:
    """The rows of a CSV by the names in its header, each with the line on which it ends.

    Text is UTF-8 or UTF-16, and the separator is the one of ``, ; |`` and tab that the header has
    most of, or that Excel's ``sep=;`` above it names. Empty lines are skipped; of columns with the
    same name the first is read. A row that is not valid CSV, or has more or fewer fields than the
    header, is an error for each of its lines, and the next ones are read.

    Args:
        path: The file.
        required: Names that the header must have.

    Raises:
        DataError: The file cannot be read, has a line that is too long or cannot be decoded, or its
            header is not valid CSV or lacks a name.
    """
    with open_file(path) as file:
        lines = _lines(file, path)
        above, first = _start(lines)
        if stated := _STATED.fullmatch(first):
            more, first = _start(lines)
            above = [*above, "\n", *more]
        separator = stated[1] if stated else max(_SEPARATORS, key=_QUOTED.sub("", first).count)
        reader = csv.reader(chain(above, [first], lines), delimiter=separator, strict=True)
        header: list[str] = []
        places: list[int] = []
        while True:
            start = reader.line_num + 1
            problem, hint = "", "fix the quotes"
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                row, problem = [], f"invalid CSV: {error}"
            if row and len(row) != len(header or row):
                problem = f"{len(row)} fields, the header has {len(header)}"
                hint = f'quote a field that holds a {separator!r}: "a{separator} b"'
            if problem and not header:
                raise DataError(problem, path=path, line=start, hint=hint)
            if problem:
                for line in range(start, reader.line_num + 1):
                    yield line, DataError(problem, path=path, line=line, hint=hint)
            elif header and row:
                yield reader.line_num, {header[place]: row[place] for place in places}
            elif row:
                header = [name.strip() for name in row]
                places = [k for k, name in enumerate(header) if name not in header[:k]]
                if lacking := [name for name in required if name not in header]:
                    problem = f"no column {lacking[0]!r} among {header}"
                    hint = f"the first line names the columns: {','.join(required)}"
                    raise DataError(problem, path=path, line=start, hint=hint)


def _start(lines: Iterator[str]) -> tuple[list[str], str]:
    """The empty lines at the start, and the first other one."""
    above: list[str] = []
    for line in lines:
        if line.strip():
            return above, line
        above.append("\n")
    return above, ""


def _lines(file: BufferedReader, path: str | Path) -> Iterator[str]:
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if file.peek(2)[:2] in marks else "utf-8-sig"
    number = 0
    with io.TextIOWrapper(file, encoding, newline="") as text:
        try:
            for number, line in enumerate(iter(partial(text.readline, _LONGEST + 1), ""), start=1):
                if len(line) > _LONGEST:
                    problem = f"more than {_LONGEST >> 20} MiB in one line"
                    raise DataError(problem, path=path, line=number, hint="is it the right file?")
                yield line
        except UnicodeDecodeError as error:
            number += 1 + error.object.count(b"\n", 0, error.start)
            name = encoding.upper().removesuffix("-SIG")
            problem = f"byte 0x{error.object[error.start]:02x} is not {name}"
            raise DataError(
                problem, path=path, line=number, hint="save the file as UTF-8"
            ) from None


def read_columns(path: Path, first: str, second: str) -> list[Row]:
    """Two columns of a CSV with a header, with the line on which each row ends.

    Args:
        path: The file.
        first: Name of the first column; no field of it may be empty.
        second: Name of the second column.

    Raises:
        DataError: The file is not CSV, a column is missing, a row has too few or too many fields,
            or the first column is empty.
    """
    rows: list[Row] = []
    for line, record in read_csv(path, (first, second)):
        if isinstance(record, DataError):
            raise record
        key = record[first].strip()
        if not key:
            raise DataError(f"{first!r} is empty", path=path, line=line, hint="fill it in")
        rows.append((line, key, record[second]))
    return rows


def read_values(
    path: Path, key: str, column: str, read: Callable[[str], Value], missing: MissingValues
) -> dict[str, Value]:
    """A column of values by another column, which is unique.

    Args:
        path: A CSV as for `read_columns`.
        key: Name of the other column.
        column: Name of the column.
        read: Makes a value of a field.
        missing: Counts the fields that cannot be read.

    Raises:
        DataError: As `read_columns`, or a field cannot be read and ``missing`` is strict.
    """
    values: dict[str, Value] = {}
    for line, found, text in read_columns(path, key, column):
        if found in values:
            problem, hint = f"{found!r} came before", "remove one of the lines"
            raise DataError(problem, path=path, line=line, hint=hint)
        missing.place = f"{path}:{line}"
        try:
            values[found] = read(text)
        except ValueError as error:
            problem = f"{found!r}: {error}, found {shown(text)}"
            raise DataError(problem, path=path, line=line, hint="fix it") from None
    return values
