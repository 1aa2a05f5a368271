"""Upkeep of a store: what is in it, what may be removed, and what is broken."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from routedk.artifacts.manifest import MANIFEST, Manifest, content_problems, read_manifest
from routedk.artifacts.store import ArtifactStore
from routedk.errors import ArtifactError, SettingError

_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An artifact as a listing shows it.

    Args:
        folder: Where its files are.
        manifest: What the store knows about it.
        used: When it was last made or found, in seconds since 1970.
    """

    folder: Path
    manifest: Manifest
    used: float


@dataclass(frozen=True, kw_only=True)
class PruneRules:
    """Which artifacts are removed: those that are too old, then the longest unused.

    Args:
        stages: Only artifacts of these stages; empty for all.
        older_than: Days since an artifact was last used, at least 0; None: age does not count.
        max_bytes: Most bytes that the remaining artifacts may have together; None for any.

    Raises:
        SettingError: No rule is given, or a number is negative or not finite.
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
            raise SettingError("nothing says what to remove: name stages, an age or a size")


def entries(store: ArtifactStore, stages: Sequence[str] = ()) -> list[Entry]:
    """All artifacts whose manifest can be read, by stage and key.

    Args:
        store: The store.
        stages: Only artifacts of these stages; empty for all.
    """
    found = []
    for folder in _folders(store, stages):
        with suppress(ArtifactError, FileNotFoundError):
            used = (folder / MANIFEST).stat().st_mtime
            found.append(Entry(folder=folder, manifest=read_manifest(folder), used=used))
    return found


def prunable(store: ArtifactStore, rules: PruneRules) -> list[Entry]:
    """The artifacts that rules would remove, the longest unused first."""
    mine = sorted(entries(store, rules.stages), key=lambda entry: entry.used)
    if rules.older_than is None and rules.max_bytes is None:
        return mine
    going = []
    left = sum(entry.manifest.size for entry in mine)
    for entry in mine:
        age = time.time() - entry.used
        old = rules.older_than is not None and age >= rules.older_than * _DAY
        if old or (rules.max_bytes is not None and left > rules.max_bytes):
            going.append(entry)
            left -= entry.manifest.size
    return going


def broken(store: ArtifactStore, stages: Sequence[str] = ()) -> Iterator[tuple[Path, list[str]]]:
    """Artifacts that differ from what was made, every byte read: folder and problems.

    Args:
        store: The store.
        stages: Only artifacts of these stages; empty for all.
    """
    for folder in _folders(store, stages):
        problems = content_problems(folder)
        if problems and folder.exists():
            yield folder, problems


def remove(store: ArtifactStore, folders: Sequence[Path]) -> list[Path]:
    """Remove artifacts, each whole; the folders removed. Those being made anew are left alone."""
    gone = []
    for folder in folders:
        stage, key = folder.parent.name, folder.name
        trash = store.work_folder(stage, key) / "removed"
        with suppress(Timeout), store.lock(stage, key, timeout=0):
            if not folder.is_dir():
                continue
            trash.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(trash, ignore_errors=True)
            folder.rename(trash)
            shutil.rmtree(trash)
            gone.append(folder)
            with suppress(OSError):
                trash.parent.rmdir()
    return gone


def abandoned(store: ArtifactStore, older_than: float = 0.0) -> list[Path]:
    """Work folders that no process is using.

    Args:
        store: The store.
        older_than: Days since anything was written there, at least 0.
    """
    found = []
    for folder in sorted((store.root / "work").glob("*")):
        times = [path.stat().st_mtime for path in (folder, *folder.rglob("*")) if path.exists()]
        if times and time.time() - max(times) >= older_than * _DAY:
            with suppress(Timeout), store.lock(*_stage_and_key(folder), timeout=0):
                found.append(folder)
    return found


def remove_work(store: ArtifactStore, folders: Sequence[Path]) -> None:
    """Remove work folders, except those that a process has taken up meanwhile."""
    for folder in folders:
        with suppress(Timeout), store.lock(*_stage_and_key(folder), timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def _folders(store: ArtifactStore, stages: Sequence[str]) -> list[Path]:
    every = sorted(path for path in (store.root / "artifacts").glob("*/*") if path.is_dir())
    return [folder for folder in every if not stages or folder.parent.name in stages]


def _stage_and_key(work: Path) -> tuple[str, str]:
    stage, _, key = work.name.rpartition("-")
    return stage, key
