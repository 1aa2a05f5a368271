"""One door for every source of sessions."""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from routedk.data.bundlerec import by_key, read_bundlerec, read_two_columns
from routedk.data.demo import demo_sessions
from routedk.data.native import read_jsonl_sessions, read_parquet_sessions, sessions_of_dataset
from routedk.data.options import DataOptions
from routedk.data.policies import apply_policies, fill_titles
from routedk.data.split import check_split_ids, read_split_file
from routedk.errors import DataError
from routedk.types import Session

DEMO = "demo"
_READERS = {".jsonl": read_jsonl_sessions, ".parquet": read_parquet_sessions}
_DEFAULTS = DataOptions()


def load_sessions(source: str | Path, options: DataOptions = _DEFAULTS) -> list[Session]:
    """Sessions of a source under the options' policies; splitting is ``split_sessions``.

    Args:
        source: ``"demo"`` for the embedded set, a ``.jsonl`` or ``.parquet`` file of native
            records, or a BundleRec folder as published.
        options: Extra titles, gold policy, untitled-item policy, split file.

    Raises:
        DataError: When the source is missing, of no known kind, or broken.
    """
    return _finish(_read(source), options)


def from_dataset(
    dataset: Iterable[Mapping[str, Any]], options: DataOptions = _DEFAULTS
) -> list[Session]:
    """Sessions of a Hugging Face ``datasets`` object under the options' policies.

    Raises:
        DataError: When a row is not a valid session.
    """
    return _finish(sessions_of_dataset(dataset), options)


def read_extra_titles(path: str | Path) -> dict[str, str]:
    """Titles by item id, from a CSV with the columns ``item ID`` and ``titles``.

    Raises:
        DataError: When the file is broken or an item comes twice.
    """
    rows = read_two_columns(Path(path), "item ID", "titles")
    return {key: html.unescape(title) for key, title in by_key(rows, Path(path)).items()}


def _read(source: str | Path) -> list[Session]:
    if source == DEMO:
        return demo_sessions()
    path = Path(source)
    if path.is_dir():
        return read_bundlerec(path)
    if not path.exists():
        raise DataError("no such file or folder", path=path, hint='check the path, or use "demo"')
    if path.suffix not in _READERS:
        raise DataError(
            f"unknown kind of file {path.suffix!r}",
            path=path,
            hint="expected .jsonl, .parquet, a BundleRec folder or demo",
        )
    return _READERS[path.suffix](path)


def _finish(sessions: list[Session], options: DataOptions) -> list[Session]:
    if options.split_file is not None:
        check_split_ids(read_split_file(options.split_file), sessions, options.split_file)
    if options.extra_titles is not None:
        sessions = fill_titles(sessions, read_extra_titles(options.extra_titles))
    return apply_policies(sessions, options)
