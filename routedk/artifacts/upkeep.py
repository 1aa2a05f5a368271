"""Looking after a store: what is in it, what may go, what is broken."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from routedk.errors import SettingError
from routedk.artifacts.manifest import MANIFEST, problems
from routedk.artifacts.store import Part, Store

_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class PruneRules:
    """Which parts go: those of the stages that are too old, then the longest unused ones.

    Args:
        stages: Only parts of these stages; none: of all.
        older_than: Days since a part was last of use, at least 0; None: age does not count.
        max_bytes: The parts left may have so many bytes together; None: any number.

    Raises:
        SettingError: Nothing is said, or a number is negative or not finite.
    """

    stages: tuple[str, ...] = ()
    older_than: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("older_than", "max_bytes"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise SettingError(f"{name}={value}: it must be at least 0 and finite")
        if not self.stages and self.older_than is None and self.max_bytes is None:
            raise SettingError("nothing says which parts may go: name stages, an age or a size")


def last_used(part: Part) -> float:
    """When a part was last of use, in seconds since 1970."""
    return (part.folder / MANIFEST).stat().st_mtime


def pruned(store: Store, rules: PruneRules, *, now: float | None = None) -> list[Part]:
    """The parts that would go, the longest unused first.

    Args:
        store: The store.
        rules: Which go.
        now: The time, in seconds since 1970; None: as the clock says.
    """
    now = time.time() if now is None else now
    mine = [p for p in store.parts() if not rules.stages or p.manifest.stage in rules.stages]
    mine.sort(key=last_used)
    if rules.older_than is None and rules.max_bytes is None:
        return mine
    going = []
    left = sum(part.manifest.size for part in mine)
    for part in mine:
        old = rules.older_than is not None and now - last_used(part) >= rules.older_than * _DAY
        if old or (rules.max_bytes is not None and left > rules.max_bytes):
            going.append(part)
            left -= part.manifest.size
    return going


def remove(store: Store, folders: Sequence[Path]) -> list[Path]:
    """Remove parts, each at once and as a whole, save those that a worker is making anew.

    Args:
        store: The store.
        folders: Of its parts.

    Returns:
        The folders that were removed.
    """
    gone = []
    for folder in folders:
        stage, key = folder.parent.name, folder.name
        trash = store.root / "work" / f"{stage}-{key}.gone"
        with suppress(Timeout, FileNotFoundError), store.lock(stage, key, timeout=0):
            trash.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(trash, ignore_errors=True)
            folder.rename(trash)
            shutil.rmtree(trash)
            gone.append(folder)
    return gone


def abandoned(store: Store, older_than: float = 0.0) -> list[Path]:
    """Unfinished work that nobody is at.

    Args:
        store: The store.
        older_than: Days since anything was written there, at least 0.
    """
    found = []
    for folder in sorted((store.root / "work").glob("*")):
        times = [path.stat().st_mtime for path in (folder, *folder.rglob("*")) if path.exists()]
        if times and time.time() - max(times) >= older_than * _DAY and _is_free(store, folder):
            found.append(folder)
    return found


def remove_work(store: Store, folders: Sequence[Path]) -> None:
    """Remove unfinished work, save what a worker has taken up meanwhile."""
    for folder in folders:
        with suppress(Timeout), _lock_of_work(store, folder):
            shutil.rmtree(folder)


def broken(store: Store, stages: Sequence[str] = ()) -> Iterator[tuple[Path, list[str]]]:
    """Parts that are not what they were when they were made, every byte read.

    Args:
        store: The store.
        stages: Only parts of these stages; none: of all.

    Yields:
        The folder, and what is wrong with it.
    """
    for folder in store.folders():
        if not stages or folder.parent.name in stages:
            found = problems(folder)
            if found and folder.exists():
                yield folder, found


def _is_free(store: Store, folder: Path) -> bool:
    try:
        with _lock_of_work(store, folder):
            return True
    except Timeout:
        return False


def _lock_of_work(store: Store, folder: Path) -> FileLock:
    stage, _, key = folder.name.rpartition("-")
    return store.lock(stage, key, timeout=0)
