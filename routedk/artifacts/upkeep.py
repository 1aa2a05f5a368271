"""Maintain a store: list what it holds, finished or not, and remove what is no longer used."""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from stat import S_ISREG

from filelock import Timeout
from pydantic import ByteSize

from routedk.artifacts.store import MANIFEST, ArtifactStore, read_manifest
from routedk.errors import SettingError

_DAY = 86_400.0


@dataclass(frozen=True)
class Entry:
    """An artifact, or the work folder of one that is being made or was abandoned.

    Args:
        stage: The kind of artifact.
        key: The hash of its recipe.
        folder: Where its files are.
        size: Their total size in bytes.
        used: When it was last made, found or written to, in seconds since 1970.
        seconds: How long it took to make; None if it is unfinished or damaged.
        created: When it was made, as ISO 8601; None likewise.
    """

    stage: str
    key: str
    folder: Path
    size: int
    used: float
    seconds: float | None
    created: str | None


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """Settings of `prune`: it removes what is too old, then the least recently used beyond a size.

    Args:
        stage: Only artifacts of this stage. Repeatable.
        older_than: Remove what has not been used for this many days.
        max_size: Remove the least recently used until at most this much is left, e.g. 500MB, 2GiB.
        dry_run: Say what would be removed, and remove nothing.

    Raises:
        SettingError: Nothing says what to remove, or a value is not allowed.
    """

    stage: tuple[str, ...] = ()
    older_than: float | None = None
    max_size: ByteSize | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.older_than is not None and not self.older_than >= 0:
            raise SettingError(f"older_than={self.older_than}: it must be at least 0")
        if not self.stage and self.older_than is None and self.max_size is None:
            raise SettingError("nothing says what to remove: name stages, an age or a size")


def entries(store: ArtifactStore, stages: Sequence[str] = ()) -> list[Entry]:
    """List what a store holds: artifacts by stage and key, then work folders.

    Args:
        store: The store.
        stages: Only artifacts of these stages; empty for all.
    """
    found = []
    for kind in ("artifacts/*/*", "work/*"):
        for folder in sorted(store.root.glob(kind)):
            stage, _, key = "-".join(folder.relative_to(store.root).parts[1:]).rpartition("-")
            # Another process may finish or remove it meanwhile.
            with suppress(FileNotFoundError):
                stats = [path.stat() for path in (folder, *folder.rglob("*"))]
                size = sum(stat.st_size for stat in stats if S_ISREG(stat.st_mode))
                used = max(stat.st_mtime for stat in stats)
                about = read_manifest(folder)
                made = about.get("seconds"), about.get("created")
                found.append(Entry(stage, key, folder, size, used, *made))
    return [entry for entry in found if not stages or entry.stage in stages]


def prune(store: ArtifactStore, config: PruneConfig) -> list[Entry]:
    """Remove artifacts and abandoned work folders; what a process is making is left alone.

    Returns:
        What was removed, or would be in a dry run, the least recently used first.
    """
    found = sorted(entries(store, config.stage), key=attrgetter("used"))
    left, limit = sum(entry.size for entry in found), config.max_size
    everything = config.older_than is None and limit is None
    gone = []
    for entry in found:
        age = time.time() - entry.used
        old = config.older_than is not None and age >= config.older_than * _DAY
        if everything or old or (limit is not None and left > limit):
            with suppress(Timeout), store.lock(entry.stage, entry.key, timeout=0):
                if not config.dry_run:
                    # The manifest first: without it, what an interruption leaves is no artifact.
                    (entry.folder / MANIFEST).unlink(missing_ok=True)
                    shutil.rmtree(entry.folder, ignore_errors=True)
                gone.append(entry)
                left -= entry.size
    return gone
