"""`load_sessions` reads sessions from every source; `DataOptions` says how."""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from routedk.checks import check_choices, check_least
from routedk.data.bundlerec import read_bundlerec, read_columns
from routedk.data.native import read_parquet
from routedk.data.policies import drop_untitled, fill_titles, minimal_bundles
from routedk.data.records import sessions_from_records
from routedk.data.split_file import check_split_ids, read_split_file
from routedk.errors import DataError
from routedk.files import read_jsonl
from routedk.types import Session

GoldPolicy = Literal["minimal", "all"]
UntitledPolicy = Literal["keep", "drop"]
_READERS = {".jsonl": read_jsonl, ".parquet": read_parquet}


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Settings of reading and splitting sessions.

    Args:
        extra_titles: CSV with the columns item ID and titles; fills in missing titles and changes
            no other.
        gold: Gold bundles: minimal drops duplicates and supersets of other bundles, all keeps
            every bundle as given.
        untitled: Items without a title: keep, or drop, which leaks part of the answer where they
            are never in a gold bundle, as in BundleRec.
        split_file: JSON of session ids by split, train, val and test; unset: 7:1:2 by the seed.
        seed: Seed of the split.

    Raises:
        SettingError: A value is not allowed.
    """

    extra_titles: Path | None = None
    gold: GoldPolicy = "minimal"
    untitled: UntitledPolicy = "keep"
    split_file: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, seed=0)


def load_sessions(source: str | Path, options: DataOptions | None = None) -> list[Session]:
    """Read the sessions of a source; `split_sessions` splits them.

    Args:
        source: ``"demo"`` for the embedded set, a ``.jsonl`` or ``.parquet`` file of native
            records, or a BundleRec folder as published.
        options: Extra titles and policies; None for the defaults.

    Raises:
        DataError: The source is missing, of no known kind, or broken.

    Example:
        >>> from routedk import load_sessions
        >>> session = load_sessions("demo")[0]
        >>> session.bundles[0].intent
        'living room gaming'
    """
    return apply_options(_read(source), options)


def from_dataset(
    dataset: Iterable[Mapping[str, Any]], options: DataOptions | None = None
) -> list[Session]:
    """Read the sessions of a Hugging Face ``Dataset`` or ``IterableDataset`` with native columns.

    Raises:
        DataError: It is a dict of splits, or a row is not a valid session.
    """
    if isinstance(dataset, Mapping):
        raise DataError(
            f"the dataset is a dict of splits: {', '.join(map(str, dataset))}",
            hint="pass one of them",
        )
    records = enumerate(dataset, start=1)
    return apply_options(list(sessions_from_records(records, path="<dataset>")), options)


def demo_sessions() -> list[Session]:
    """Read the embedded demo set, 300 synthetic sessions; see ``demo.md`` in this folder."""
    path = Path(__file__).with_name("demo.jsonl")
    return list(sessions_from_records(read_jsonl(path), path=path))


def apply_options(sessions: list[Session], options: DataOptions | None = None) -> list[Session]:
    """Apply the options to sessions: extra titles, then policies.

    Raises:
        DataError: A file that the options name is broken, or names sessions that do not exist.
    """
    options = options or DataOptions()
    if options.split_file is not None:
        # Here, as dropping untitled items may remove whole sessions.
        check_split_ids(read_split_file(options.split_file), sessions, options.split_file)
    if options.extra_titles is not None:
        sessions = fill_titles(sessions, read_extra_titles(options.extra_titles))
    if options.untitled == "drop":
        sessions = [kept for session in sessions if (kept := drop_untitled(session)) is not None]
    if options.gold == "minimal":
        sessions = [
            replace(one, bundles=minimal_bundles(one.bundles)) if one.bundles else one
            for one in sessions
        ]
    return sessions


def read_extra_titles(path: str | Path) -> dict[str, str]:
    """Titles by item id, from a CSV with the columns ``item ID`` and ``titles``.

    Raises:
        DataError: The file is broken or an item comes twice.
    """
    titles = read_columns(Path(path), "item ID", "titles", unique=True)
    return {item_id: html.unescape(title) for _, item_id, title in titles}


def _read(source: str | Path) -> list[Session]:
    if source == "demo":
        return demo_sessions()
    path = Path(source)
    if path.is_dir():
        return read_bundlerec(path)
    if not path.exists():
        raise DataError("no such file or folder", path=path, hint='check the path, or use "demo"')
    if path.suffix not in _READERS:
        problem = f"unknown kind of file {path.suffix!r}"
        hint = "expected .jsonl, .parquet, a BundleRec folder or demo"
        raise DataError(problem, path=path, hint=hint)
    return list(sessions_from_records(_READERS[path.suffix](path), path=path))
