"""File I/O: errors name the file and line, and an interrupted write leaves no broken file."""

import gzip
import hashlib
import json
import os
import secrets
import tempfile
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from io import BufferedReader
from pathlib import Path
from threading import Lock
from typing import IO, Any, Literal, Self

from filelock import FileLock, Timeout

from routedk.errors import DataError
from routedk.parsing import MAX_BYTES, check_value, decode, parse_json, parse_jsonl


@contextmanager
def atomic_write(
    path: str | Path, *, binary: bool = False, partial: bool = False
) -> Iterator[IO[Any]]:
    """Open a file for writing that appears under its name only once it is complete.

    Missing parent folders are created. Text is UTF-8 with ``\\n`` line endings.

    Args:
        path: Where the finished file goes; an existing file is replaced.
        binary: Whether to write bytes instead of text.
        partial: Whether the temporary file is ``PATH.partial``, and is kept on an interruption.

    Yields:
        The open temporary file, removed on an exception unless ``partial``; the old file stays.

    Raises:
        DataError: The file cannot be written, or another run is writing it (``partial``).
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise DataError("cannot write: not a regular file", path=path, hint="name another file")
    hidden = f".{target.name[:100]}.{secrets.token_hex(4)}.tmp"
    temporary = target.with_name(f"{target.name}.partial" if partial else hidden)
    text: dict[str, Any] = {} if binary else {"encoding": "utf-8", "newline": "\n"}
    mark = hashlib.sha256(str(target).encode()).hexdigest()[:16]
    lock = Path(tempfile.gettempdir()) / f"routedk-{mark}.lock"
    busy = ("another run is writing it", "wait for it, or name another file")
    with held(lock, target, *busy) if partial else nullcontext():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle: IO[Any] = temporary.open("wb" if binary else "w", **text)
        except OSError as error:
            problem = f"cannot write: {error.strerror or error}"
            raise DataError(problem, path=target, hint="name another file") from error
        try:
            with handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(target)
        except BaseException:
            if not partial:
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def held(lock: str | Path, path: Path, problem: str, hint: str) -> Iterator[None]:
    """Hold a lock against other processes during the block.

    Args:
        lock: The lock file, released when this process ends.
        path: What it protects.
        problem: What is wrong if another process holds it.
        hint: What to do in that case.

    Raises:
        DataError: Another process holds it.
    """
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise DataError(problem, path=path, hint=hint) from None


@contextmanager
def open_file(path: str | Path) -> Iterator[BufferedReader]:
    """Open a file to read its bytes, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: It is missing, a folder, or not readable.
    """
    try:
        with Path(path).open("rb") as file:
            # GzipFile reads like a raw file, but its type stubs do not say so.
            packed: Any = str(path).lower().endswith(".gz") and gzip.GzipFile(fileobj=file)
            yield BufferedReader(packed) if packed else file
    except (OSError, EOFError, zlib.error) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = getattr(error, "strerror", None) or error
        problem = "no such file" if missing else f"cannot read: {reason}"
        raise DataError(problem, path=path, hint="check the path") from error


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of an open file, each as soon as it arrives; none is read beyond `MAX_BYTES`."""
    return iter(partial(file.readline, MAX_BYTES + 1), b"")


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without a byte order mark, line endings unchanged.

    Raises:
        DataError: It cannot be read, is too large, or is not UTF-8 (with the line).
    """
    with open_file(path) as file:
        return decode(file.read(MAX_BYTES + 1), path=path)


def read_json(path: str | Path) -> object:
    """The value of a JSON file.

    Raises:
        DataError: As `read_text` and `parse_json`.
    """
    return parse_json(read_text(path), path=path)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        DataError: As `read_text`, or it is not TOML, is nested too deeply, or has a number that is
            too long or not finite.
    """
    text = read_text(path)
    try:
        table = tomllib.loads(text)
        check_value(table)
    except (RecursionError, ValueError) as error:
        deep = isinstance(error, RecursionError)
        problem = f"not TOML: {'nested too deeply' if deep else error}"
        raise DataError(problem, path=path, hint="fix it") from None
    return table


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers, counted from 1.

    Empty lines are skipped.

    Raises:
        DataError: The file cannot be read, or as `parse_jsonl`.
    """
    with open_file(path) as file:
        yield from parse_jsonl(lines_of(file), path=path)


def read_tensors(path: str | Path, framework: Literal["numpy", "pt"]) -> dict[str, Any]:
    """The tensors of a safetensors file by name.

    Args:
        path: The file.
        framework: Whether to return NumPy or PyTorch tensors.

    Raises:
        DataError: It is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        raise DataError(f"missing or damaged: {error}", path=path) from error


def write_jsonl_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as JSONL, atomically; key order and non-ASCII letters are preserved."""
    with atomic_write(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def write_json(path: str | Path, value: object) -> None:
    """Write a value as indented JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, allow_nan=False, indent=2)
        file.write("\n")


class JsonlLog:
    """An append-only JSONL file: every appended record is on disk, even after a kill.

    Opening it cuts off an incomplete last line, including zero bytes left by a power cut. Threads
    may share a log; the caller ensures that only one process at a time has it open.

    Args:
        path: The file; it and its folder are created if missing.
        start: Byte to read from, the `end` of an earlier opening, so that nothing is read twice.

    Attributes:
        records: Line number and object of each record read when the file was opened.
        end: Byte after the last record.

    Raises:
        DataError: The file cannot be read or written, or a complete line is not a JSON object.
    """

    def __init__(self, path: str | Path, *, start: int = 0) -> None:
        self.path = Path(path)
        self._lock = Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: one write per record, so that a kill leaves at most one incomplete line.
            self._file = self.path.open("ab", buffering=0)
            with self.path.open("rb") as file:
                file.seek(start)
                content = file.read()
        except OSError as error:
            raise self._unwritable(error) from error
        whole = content.rfind(b"\n") + 1
        self.end = start + whole
        try:
            lines = content[:whole].split(b"\n")
            self.records = list(parse_jsonl(lines, path=path, lenient=True))
        except DataError:
            self._file.close()
            raise
        self._file.truncate(self.end)

    def __enter__(self) -> Self:
        """The log itself."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record; on return it is on disk.

        Raises:
            DataError: It cannot be written; the file then ends with the record before it.
        """
        # ASCII: a text may hold a lone surrogate, which UTF-8 cannot encode.
        line = json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
        with self._lock:
            try:
                # A raw write may be short.
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
                os.fsync(self._file.fileno())
            except OSError as error:
                self._file.truncate(self.end)
                raise self._unwritable(error) from error
            self.end += len(line)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._file.close()

    def _unwritable(self, error: OSError) -> DataError:
        problem = f"cannot write: {error.strerror or error}"
        hint = "earlier lines are kept; fix the cause and run the same command again"
        return DataError(problem, path=self.path, hint=hint)


def printable_json(value: object, indent: int | None = None) -> str:
    """A value as JSON that is safe to print: characters that control a terminal are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    shown = (one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
    return "".join(shown)
