"""Native sessions in JSONL, Parquet and Hugging Face ``datasets``."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any

from routedk.data.records import session_to_record
from routedk.errors import DataError
from routedk.files import atomic_write, write_jsonl_records
from routedk.types import Session

_COLUMNS = ("session_id", "items", "bundles")


def write_jsonl(path: str | Path, sessions: Iterable[Session]) -> None:
    """Write sessions as JSONL, atomically.

    Raises:
        DataError: The file cannot be written.
    """
    write_jsonl_records(path, map(partial(session_to_record, images=True), sessions))


def write_parquet(path: str | Path, sessions: Iterable[Session]) -> None:
    """Write sessions as Parquet, atomically.

    Raises:
        DataError: The file cannot be written.
    """
    import pyarrow.parquet as pq

    table = _table(sessions)
    with atomic_write(path, binary=True) as file:
        pq.write_table(table, file)


def to_dataset(sessions: Iterable[Session]) -> Any:
    """Convert sessions to a Hugging Face ``Dataset`` with the columns of the native record."""
    from datasets import Dataset

    return Dataset(_table(sessions))


def read_parquet(file: BufferedReader, path: str | Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a Parquet file, counted from 1; native records without additional columns.

    Args:
        file: The open file.
        path: Its name.

    Raises:
        DataError: It is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        native = {*_COLUMNS[:2]} <= {*names}
        chosen = [name for name in _COLUMNS if name in names] if native else names
        batches = (batch.to_pylist() for batch in table.iter_batches(8192, columns=chosen))
        yield from enumerate(chain.from_iterable(batches), start=1)
    # The last two: text that is not UTF-8, and dates that Python cannot represent.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        problem = f"not a readable Parquet file: {error}"
        raise DataError(problem, path=path, hint="write it again") from error


def _table(sessions: Iterable[Session]) -> Any:
    import pyarrow as pa

    text = pa.string()
    item = {"id": text, "title": text, "categories": pa.list_(text), "price": pa.float64()}
    item["image"] = text
    bundle = {"items": pa.list_(text), "intent": text}
    schema = pa.schema(
        {
            "session_id": text,
            "items": pa.list_(pa.struct(item)),
            "bundles": pa.list_(pa.struct(bundle)),
        }
    )
    rows = [session_to_record(session, images=True) for session in sessions]
    return pa.Table.from_pylist(rows, schema=schema)
