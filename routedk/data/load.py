"""`load_sessions` reads sessions from every source; `DataOptions` says how."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from routedk.checks import check_choices, check_least
from routedk.data.bundlerec import SESSION_ITEM, read_bundlerec
from routedk.data.csv_file import read_csv, read_values
from routedk.data.native import read_parquet
from routedk.data.order_lines import find_columns, parse_columns, read_order_lines
from routedk.data.policies import drop_untitled, fill_titles, minimal_bundles
from routedk.data.records import UnreadSession, readable, sessions_from_records
from routedk.data.split_file import check_split_ids, read_split_file
from routedk.data.values import MissingValues, as_text
from routedk.errors import DataError
from routedk.files import lines_of, open_file
from routedk.parsing import scan_jsonl
from routedk.types import Session

GoldPolicy = Literal["minimal", "all"]
UntitledPolicy = Literal["keep", "drop"]
_ROW = "a row is a mapping with session_id and items"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Settings for reading and splitting sessions.

    Args:
        extra_titles: CSV with the columns item ID and titles; fills in missing titles and keeps
            all others.
        gold: Gold bundles: minimal drops duplicates and supersets of other bundles, all keeps
            every bundle as given.
        untitled: Items without a title: keep, or drop, which leaks part of the answer if they are
            never in a gold bundle, as in BundleRec.
        split_file: JSON of session ids by split (train, val and test); unset: 7:1:2 by the seed.
        seed: Seed of the split.
        strict: Reject a value that cannot be read, such as the price "ask us", instead of treating
            it as missing.
        columns: Columns of order lines, such as session=InvoiceNo,item=StockCode,title=Description;
            all others are found by their usual names.

    Raises:
        SettingError: A value is not allowed.
    """

    extra_titles: Path | None = None
    gold: GoldPolicy = "minimal"
    untitled: UntitledPolicy = "keep"
    split_file: Path | None = None
    seed: int = 0
    strict: bool = False
    columns: str | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, seed=0)
        parse_columns(self.columns)


def load_sessions(source: str | Path, options: DataOptions | None = None) -> list[Session]:
    """Read the sessions of a source; `split_sessions` splits them.

    Values that cannot be read count as missing; a logged warning says how many there are.

    Args:
        source: ``"demo"`` for the embedded set; a ``.jsonl``, ``.ndjson`` or ``.parquet`` file of
            native records, or one with a line per item, as shops export orders, also ``.csv`` or
            ``.tsv``; a folder of such files; or a BundleRec folder as published. Text files may be
            compressed, e.g. ``.csv.gz``.
        options: Extra titles and policies; None for the defaults.

    Raises:
        DataError: The source is missing, of unknown kind or broken, or a session is broken.

    Example:
        >>> from routedk import load_sessions
        >>> session = load_sessions("demo")[0]
        >>> session.bundles[0].intent
        'living room gaming'
    """
    return list(readable(scan_sessions(source, options)))


def scan_sessions(
    source: str | Path, options: DataOptions | None = None
) -> Iterator[Session | UnreadSession]:
    """Read sessions one at a time, with an `UnreadSession` in place of each unreadable one.

    Args:
        source: As for `load_sessions`, or ``"-"`` for JSONL or CSV from standard input.
        options: As for `load_sessions`.

    Raises:
        DataError: As `load_sessions`, but for a broken session only if ``options.strict``.
    """
    options = options or DataOptions()
    missing = MissingValues(strict=options.strict)
    yield from apply_options(_read(source, missing, options.columns), options, missing)


def from_dataset(
    dataset: Iterable[Mapping[str, Any]], options: DataOptions | None = None
) -> list[Session]:
    """Read the sessions of a data set with native columns.

    Args:
        dataset: A Hugging Face ``Dataset`` or ``IterableDataset``, a pandas ``DataFrame``, or any
            iterable of mappings.
        options: As for `load_sessions`.

    Raises:
        DataError: It is a dict of splits, or a row is not a valid session.
    """
    if isinstance(dataset, Mapping):
        raise DataError(
            f"the dataset is a dict of splits: {', '.join(map(str, dataset))}",
            hint="pass one of them",
        )
    options, place = options or DataOptions(), "<dataset>"
    missing = MissingValues(strict=options.strict)
    # Iterating over a DataFrame gives the names of its columns.
    records: Any = dataset
    if hasattr(records, "iterrows"):
        records = records.to_dict("records")
    if not isinstance(records, Iterable):
        raise DataError(f"cannot read a {type(dataset).__name__}", hint=_ROW)

    def rows() -> Iterator[tuple[str, int, Mapping[str, Any]]]:
        for row, record in enumerate(records, start=1):
            if not isinstance(record, Mapping):
                problem = f"a row is a {type(record).__name__}"
                raise DataError(problem, path=place, line=row, hint=_ROW)
            yield place, row, record

    found = sessions_from_records(rows(), path=place, missing=missing)
    return list(readable(apply_options(found, options, missing)))


def apply_options(
    found: Iterable[Session | UnreadSession], options: DataOptions, missing: MissingValues
) -> Iterator[Session | UnreadSession]:
    """Add extra titles to sessions and apply the policies.

    Args:
        found: The sessions as they were read.
        options: Extra titles and policies.
        missing: Has counted the values that cannot be read; logged after the last session.

    Raises:
        DataError: A file that the options name is broken, or names sessions that do not exist; or
            a session cannot be read, if ``options.strict``.
    """
    titles: dict[str, str] = {}
    if (extra := options.extra_titles) is not None:
        read = partial(as_text, name="title", missing=missing)
        titles = read_values(Path(extra), "item ID", "titles", read, missing)
    parts = read_split_file(options.split_file) if options.split_file else None
    ids = set[str]()
    for one in readable(found) if options.strict else found:
        if isinstance(one, UnreadSession):
            yield one
            continue
        if parts is not None:
            # Dropping untitled items may remove whole sessions.
            ids.add(one.id)
        one = fill_titles(one, titles)
        kept = drop_untitled(one) if options.untitled == "drop" else one
        if kept is not None:
            minimal = kept.bundles and options.gold == "minimal"
            yield replace(kept, bundles=minimal_bundles(kept.bundles or ())) if minimal else kept
    if options.split_file is not None and parts is not None:
        check_split_ids(parts, ids, options.split_file)
    missing.report()


def _read(
    source: str | Path, missing: MissingValues, columns: str | None = None
) -> Iterator[Session | UnreadSession]:
    if source == "demo":
        source = Path(__file__).with_name("demo.jsonl")
    path = _STDIN if source == "-" else Path(source)
    if path is not _STDIN and not path.exists():
        raise DataError("no such file or folder", path=path, hint='check the path, or use "demo"')
    parts = [_STDIN] if path is _STDIN else _parts(path)
    if path.is_dir() and (not parts or (path / SESSION_ITEM).exists()):
        return iter(read_bundlerec(path, missing))
    if not parts:
        problem = f"unknown kind of file {path.suffix!r}"
        kinds = ", ".join(_READERS)
        hint = f"expected {kinds} (save a table as CSV), a folder of these, of BundleRec, or demo"
        raise DataError(problem, path=path, hint=hint)
    found = ((part, *row) for part in parts for row in _rows(part))
    # The next line of a pipe may take long to arrive.
    head = list(islice(found, 1 if path is _STDIN else 100))
    rows = chain(head, found)
    names = set(chain(*(record for *_, record in head if isinstance(record, Mapping))))
    # A record with nothing but an id is a broken session.
    lines = bool(names - {"session_id", "bundles"}) and "items" not in names
    if lines and path is _STDIN:
        try:
            find_columns(names, {}, path)
        except DataError:  # The only line read so far is a broken session, too.
            lines = False
    if columns or _kind(parts[0]) in _CSV or lines:
        return read_order_lines(rows, parse_columns(columns), missing, path)
    return sessions_from_records(rows, path=path, missing=missing)


def _parts(path: Path) -> list[Path]:
    """The file, or the files of a folder, if they are of readable kinds."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in files if _kind(file) in _READERS and file.name[0] not in "._"]
    # A CSV file next to session files holds something else.
    return [file for file in found if _kind(file) not in _CSV] or found


def _kind(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | DataError]]:
    """The records of a file or of standard input, which is JSONL if it begins like JSONL."""
    opened: AbstractContextManager[BufferedReader] = open_file(path)
    if path is _STDIN:
        # A separate buffer: at exit, a thread waiting for a line must not hold sys.stdin's lock.
        opened = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    with opened as file:
        kind = _kind(path)
        if path is _STDIN:
            kind = ".jsonl" if file.peek(1).lstrip(b"\xef\xbb\xbf \r\n")[:1] == b"{" else ".csv"
        yield from _READERS[kind](file, path)


def _read_jsonl(
    file: BufferedReader, path: Path
) -> Iterator[tuple[int, Mapping[str, Any] | DataError]]:
    return scan_jsonl(lines_of(file), path=path, lenient=True)


_STDIN = Path("<stdin>")
_CSV = {".csv": read_csv, ".tsv": read_csv}
_READERS: dict[
    str, Callable[[BufferedReader, Path], Iterator[tuple[int, Mapping[str, Any] | DataError]]]
] = {".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": read_parquet, **_CSV}
