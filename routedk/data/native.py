"""Native sessions in JSONL, Parquet and Hugging Face ``datasets``."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from routedk.data.records import session_to_record, sessions_from_records
from routedk.errors import DataError
from routedk.files import atomic_write, read_bytes, read_jsonl, write_jsonl_records
from routedk.types import Session

_COLUMNS = ("session_id", "items", "bundles")


def read_jsonl_sessions(path: str | Path) -> list[Session]:
    """Sessions of a JSONL file.

    Raises:
        DataError: When a line is not a valid session, an id comes twice, or there is none.
    """
    return sessions_from_records(read_jsonl(path), path=path)


def read_parquet_sessions(path: str | Path) -> list[Session]:
    """Sessions of a Parquet file with the columns of the native record.

    Raises:
        DataError: When it is not Parquet, a column is missing, or a row is not a valid session.
    """
    return sessions_from_records(_parquet_rows(path), path=path)


def write_jsonl(path: str | Path, sessions: Iterable[Session]) -> None:
    """Write sessions as JSONL, atomically.

    Raises:
        DataError: When the place cannot be written to.
    """
    write_jsonl_records(path, map(session_to_record, sessions))


def write_parquet(path: str | Path, sessions: Iterable[Session]) -> None:
    """Write sessions as Parquet, atomically.

    Raises:
        DataError: When the place cannot be written to.
    """
    import pyarrow.parquet as pq

    table = _table(sessions)
    with atomic_write(path, binary=True) as file:
        pq.write_table(table, file)


def sessions_of_dataset(dataset: Iterable[Mapping[str, Any]]) -> list[Session]:
    """Sessions of a Hugging Face ``Dataset`` or ``IterableDataset`` with native columns.

    Raises:
        DataError: When it is a dict of splits, a column is missing, or a row is not valid.
    """
    if isinstance(dataset, Mapping):
        raise DataError(
            f"the dataset is a dict of splits: {', '.join(map(str, dataset))}",
            hint="hand in one of them",
        )
    return sessions_from_records(enumerate(dataset, start=1), path="<dataset>")


def to_dataset(sessions: Iterable[Session]) -> Any:
    """Sessions as a Hugging Face ``datasets.Dataset`` with the native columns."""
    from datasets import Dataset

    return Dataset(_table(sessions))


def _parquet_rows(path: str | Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = read_bytes(path)
    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        missing = [name for name in _COLUMNS[:2] if name not in file.schema_arrow.names]
        if missing:
            raise DataError(
                f"no column {missing[0]!r} among {', '.join(file.schema_arrow.names)}",
                path=path,
                hint="the columns are session_id, items, bundles",
            )
        present = [name for name in _COLUMNS if name in file.schema_arrow.names]
        row = 0
        for batch in file.iter_batches(columns=present):
            for record in batch.to_pylist():
                row += 1
                yield row, record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"not a readable Parquet file: {reason}", path=path, hint="write it again"
        ) from error


def _table(sessions: Iterable[Session]) -> Any:
    import pyarrow as pa

    item = [
        ("id", pa.string()),
        ("title", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("price", pa.float64()),
    ]
    bundle = [("items", pa.list_(pa.string())), ("intent", pa.string())]
    schema = pa.schema(
        [
            ("session_id", pa.string()),
            ("items", pa.list_(pa.struct(item))),
            ("bundles", pa.list_(pa.struct(bundle))),
        ]
    )
    return pa.Table.from_pylist([session_to_record(session) for session in sessions], schema=schema)
