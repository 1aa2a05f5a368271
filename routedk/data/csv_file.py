"""Read CSV as people and programs save it, and columns of BundleRec's tables."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BufferedReader
from itertools import chain, islice
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
"""Maximum length of a line, in characters."""
_HEAD = 20
"""Number of lines in which the first non-empty one is the header or a ``sep=`` line."""


def read_csv(
    file: BufferedReader, path: str | Path, required: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str] | DataError]]:
    """Yield the rows of a CSV file by column name, each with the line on which it ends.

    Text is UTF-8 or UTF-16; bytes that are neither are read as Windows-1252. The separator is the
    most frequent of ``, ; |`` and tab in the header, or the one that Excel's ``sep=;`` line above
    it names. Empty lines are skipped; of columns with the same name, the first is read. A row that
    is not valid CSV, or has more or fewer fields than the header, yields an error for each of its
    lines, and reading goes on.

    Args:
        file: The open file.
        path: Its name.
        required: Column names that the header must have.

    Raises:
        DataError: It has a line that is too long, or its header is not valid CSV or lacks a name.
    """
    lines = _lines(file, path)
    head = [line if line.strip() else "\n" for line in islice(lines, _HEAD)]
    first = next((place for place, line in enumerate(head) if line.strip()), 0)
    if head and (stated := _STATED.fullmatch(head[first])):
        head[first], separator = "\n", stated[1]
    else:
        text = _QUOTED.sub("", head[first]) if head else ""
        separator = max(_SEPARATORS, key=text.count)
    reader = csv.reader(chain(head, lines), delimiter=separator, strict=True)
    header: list[str] = []
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
            record = dict[str, str]()
            for name, field in zip(header, row, strict=True):
                record.setdefault(name, field)
            yield reader.line_num, record
        elif row:
            header = [name.strip() for name in row]
            if lacking := [name for name in required if name not in header]:
                problem = f"no column {lacking[0]!r} among {header}"
                hint = f"the first line names the columns: {','.join(required)}"
                raise DataError(problem, path=path, line=start, hint=hint)


def _lines(file: BufferedReader, path: str | Path) -> Iterator[str]:
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if file.peek(2)[:2] in marks else "utf-8-sig"
    with io.TextIOWrapper(file, encoding, errors=_windows.__name__, newline="") as text:
        for number, line in enumerate(iter(partial(text.readline, _LONGEST + 1), ""), start=1):
            if len(line) > _LONGEST:
                problem = f"more than {_LONGEST >> 20} MiB in one line"
                raise DataError(problem, path=path, line=number, hint="is it the right file?")
            yield line


def _windows(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that are invalid in a file's encoding."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(_windows.__name__, _windows)


def read_columns(path: Path, first: str, second: str) -> list[Row]:
    """Read two columns of a CSV file with a header, with the line on which each row ends.

    Args:
        path: The file.
        first: Name of the first column; none of its fields may be empty.
        second: Name of the second column.

    Raises:
        DataError: The file is not CSV, a column is missing, a row has too few or too many fields,
            or the first column is empty.
    """
    rows: list[Row] = []
    with open_file(path) as file:
        for line, record in read_csv(file, path, (first, second)):
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
    """Read a column as a dict keyed by another column, whose fields are unique.

    Args:
        path: A CSV file as for `read_columns`.
        key: Name of the key column.
        column: Name of the value column.
        read: Converts a field to a value.
        missing: Counts the fields that cannot be read.

    Raises:
        DataError: As `read_columns`, a repeated key, or an unreadable field (strict ``missing``).
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
