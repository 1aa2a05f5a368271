"""`ArtifactStore`: artifacts in folders named by their keys, each made once, by one process.

::

    artifacts/STAGE/KEY/   a finished artifact: its files and manifest.json
    work/STAGE-KEY/        an artifact being made, or left by a process that was killed
    locks/STAGE-KEY        held by the process that makes it, released when that process ends

An artifact appears under its name by one rename, with all its files on disk, so one that has a
manifest is complete. What a killed process left in its work folder (checkpoints of a training run)
is kept for the next one to resume from. Only the artifacts of answers grow afterwards.

A store at a URL, such as ``s3://BUCKET/PATH``, is such a folder in the cache, plus one archive per
finished artifact at the URL. There are no locks at the URL: machines may make the same artifact at
the same time, and all use that of the first one to finish.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from routedk.artifacts.recipe import Recipe, content_hash
from routedk.artifacts.remote import fetch, share
from routedk.cache import cache_folder
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json, write_json

logger = logging.getLogger(__name__)
# Seconds of waiting after which the reason is logged.
_QUIET = 2.0

MANIFEST = "manifest.json"
"""Says what an artifact was made from, how long it took and when; written last, removed first."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A finished artifact in a store.

    Args:
        folder: Where its files are.
        key: The hash of its recipe.
        reused: Whether it existed already when it was requested.
        seconds: How long it took to make.
    """

    folder: Path
    key: str
    reused: bool
    seconds: float


class ArtifactStore:
    """Keeps artifacts by recipe; several processes and machines may share its folder.

    Args:
        folder: Created with the first artifact; or an fsspec URL. None for ``store`` in RouteDK's
            cache folder.

    Raises:
        SettingError: It is a file.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._url = folder if isinstance(folder, str) and "://" in folder else None
        if self._url is not None:
            folder = cache_folder() / f"store-{content_hash(self._url)[:12]}"
        self.root = Path(folder or cache_folder() / "store").resolve()
        if self.root.is_file():
            raise SettingError(f"store {folder}: it is a file, name a folder")

    @staticmethod
    def of(store: "ArtifactStore | str | Path | None") -> "ArtifactStore":
        """The store that a caller named: a store, a folder or URL, or None for the default one."""
        return store if isinstance(store, ArtifactStore) else ArtifactStore(store)

    def obtain(self, recipe: Recipe, make: Callable[[Path, Path], None]) -> Artifact:
        """Get the artifact of a recipe from the store, or make it.

        If several callers request it at once, one makes it and the others wait.

        Args:
            recipe: What determines it.
            make: Called with an empty folder for the artifact's files, and with a work folder
                that survives an interruption and is removed on success.

        Raises:
            Exception: Whatever ``make`` raises; only the work folder is kept.
            OSError: The store cannot be written to.
        """
        if (found := self.find(recipe)) is not None:
            return found
        lock = self.lock(recipe.stage, recipe.key)
        try:
            held = lock.acquire(timeout=_QUIET)
        except Timeout:
            logger.info("another process makes %s: waiting for %s", recipe.stage, lock.lock_file)
            held = lock.acquire()
        with held:
            # Another process may have made it while this one waited.
            if (found := self.find(recipe)) is not None:
                return found
            return self._make(recipe, make)

    def find(self, recipe: Recipe) -> Artifact | None:
        """The artifact of a recipe if the store has it, else None."""
        folder = self.folder(recipe.stage, recipe.key)
        if self._url is not None and not read_manifest(folder):
            fetch(self._url, recipe.stage, recipe.key, folder)
        if not (manifest := read_manifest(folder)):
            return None
        # Record the time of last use for `prune`; a store may be read-only.
        with suppress(OSError):
            os.utime(folder / MANIFEST)
        return Artifact(folder=folder, key=recipe.key, reused=True, seconds=manifest["seconds"])

    def folder(self, stage: str, key: str) -> Path:
        """Where an artifact is, or would be."""
        return self.root / "artifacts" / stage / key

    def work_folder(self, stage: str, key: str) -> Path:
        """Where an artifact is made."""
        return self.root / "work" / f"{stage}-{key}"

    def lock(self, stage: str, key: str, *, timeout: float = -1) -> FileLock:
        """The lock held while an artifact is made; released when its process ends.

        Args:
            stage: Stage of the artifact.
            key: Key of the artifact.
            timeout: Seconds to wait for it; -1 waits forever.
        """
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{stage}-{key}", timeout=timeout)

    def _make(self, recipe: Recipe, make: Callable[[Path, Path], None]) -> Artifact:
        target = self.folder(recipe.stage, recipe.key)
        here = self.work_folder(recipe.stage, recipe.key)
        out, work = here / "out", here / "work"
        if not read_manifest(out):  # It is complete if only sharing it failed.
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            work.mkdir(exist_ok=True)
            started = time.monotonic()
            make(out, work)
            seconds = round(time.monotonic() - started, 3)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            manifest = {"key": recipe.key, "seconds": seconds, "created": created}
            _flush(out)
            write_json(out / MANIFEST, recipe.to_dict() | manifest)
            _flush(out)
        shared = self._url is None or share(self._url, recipe.stage, recipe.key, out)
        # Another machine was faster: all should use the same artifact.
        if not shared and (found := self.find(recipe)) is not None:
            shutil.rmtree(here)
            return found
        # What an interrupted removal left there, or a damaged artifact.
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        out.rename(target)
        shutil.rmtree(here)
        seconds = read_manifest(target)["seconds"]
        return Artifact(folder=target, key=recipe.key, reused=False, seconds=seconds)


def _flush(folder: Path) -> None:
    """Sync all files of a folder to disk, so that a power cut leaves none of them empty."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact or a copy of one; empty if there is none, or not one of ours."""
    try:
        manifest = read_json(folder / MANIFEST)
    except DataError:
        return {}
    if isinstance(manifest, dict) and manifest.keys() >= {"stage", "key", "version", "seconds"}:
        return manifest
    return {}


def copy_artifact(folder: Path, output: str | Path) -> None:
    """Copy a folder, e.g. an artifact's, to where a user wants it, completely or not at all.

    Args:
        folder: What to copy.
        output: A new folder, an empty one, or an earlier copy, which is replaced.

    Raises:
        ArtifactError: Something else is there.
    """
    target = Path(output).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".routedk-", dir=target.parent) as scratch:
        copy = shutil.copytree(folder, Path(scratch) / "copy")
        # As late as possible: what is there now is what would be replaced.
        check_output(output)
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        copy.rename(target)


def check_output(output: str | Path) -> None:
    """Check, before the work that fills it, that `copy_artifact` may write to a folder.

    Raises:
        ArtifactError: A file is there, or a folder that is neither empty nor an earlier copy.
    """
    target = Path(output)
    if target.exists() and not (
        target.is_dir() and (read_manifest(target) or not any(target.iterdir()))
    ):
        raise ArtifactError(f"{output}: exists already: name another folder, or remove it")
