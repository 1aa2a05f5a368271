"""Answers in a folder of Parquet parts; each is written atomically and never recomputed.

::

    part-000001.parquet   predictions, one row per session
    unread.parquet        sessions that could not be read, or failed; rewritten by every run
    _job.json             what the job was started with; Parquet readers ignore it
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from routedk.errors import ArtifactError, SettingError, one_line
from routedk.eval.predictions import write_part
from routedk.files import read_json, write_json

UNREAD = "unread.parquet"
_JOB, _LOCK, _PARTS = "_job.json", ".lock", "part-*.parquet"


def stored(folder: Path) -> Iterator[tuple[str, str]]:
    """The id and the error (empty if none) of each session in the parts.

    Raises:
        ArtifactError: A part is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in sorted(folder.glob(_PARTS)):
        try:
            table = pq.read_table(part, columns=["session_id", "error"])
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(
                f"{part}: cannot be read ({one_line(str(error), 150)}): remove it, and its "
                "sessions are answered again"
            ) from error
        for row in table.to_pylist():
            yield row["session_id"], row["error"] or ""


def add_part(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a part; on return it is on disk."""
    stems = (part.stem.removeprefix("part-") for part in folder.glob(_PARTS))
    numbers = (int(stem) for stem in stems if stem.isdecimal())
    write_part(folder / f"part-{1 + max(numbers, default=0):06}.parquet", records)


@contextmanager
def sole_writer(folder: Path, made_with: Mapping[str, Any]) -> Iterator[None]:
    """Lock the folder of a job, new or interrupted, for this process alone.

    Args:
        folder: The job's folder; created if missing.
        made_with: What must be the same whenever the job is resumed, JSON-serializable.

    Raises:
        ArtifactError: The folder holds something else, or another run is writing to it.
        SettingError: The job was started with other values; the message names the first difference.
    """
    job = folder / _JOB
    ours = folder.is_dir() and {one.name for one in folder.iterdir()} <= {_LOCK}
    if folder.exists() and not job.exists() and not ours:
        raise ArtifactError(f"{folder}: exists already: name another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / _LOCK, timeout=0).acquire()
    except Timeout:
        problem = f"{folder}: another run is writing it: wait for it, or name another folder"
        raise ArtifactError(problem) from None
    with held:
        for left in folder.glob(".*.tmp"):  # A driver was killed while it wrote this.
            left.unlink()
        if not any(folder.glob(_PARTS)):  # Nothing answered yet: settings may still change.
            write_json(job, made_with)
        theirs: Any = read_json(job)
        if not isinstance(theirs, dict):
            raise ArtifactError(f"{job}: is not the record of a job: name another folder")
        for name, mine in made_with.items():
            if theirs.get(name) != mine:
                raise SettingError(
                    f"{folder}: was made with a different {name}: {theirs.get(name)}, not {mine}; "
                    "give the same, or name another folder"
                )
        yield
