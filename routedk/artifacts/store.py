"""`Store`: parts in folders named by their keys, made once, by one worker at a time.

::

    parts/STAGE/KEY/    a finished part: its files and manifest.json
    work/STAGE-KEY/     what a worker is making, or was when it was killed
    locks/STAGE-KEY     held by the worker that makes it, freed by the system when it dies

A part appears under its name whole, by one rename. What a killed worker had begun (checkpoints of a
training, answers so far) stays in ``work``, and the next worker that wants the part goes on there.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from routedk.errors import ArtifactError
from routedk.files import write_json
from routedk.artifacts.keys import Recipe
from routedk.artifacts.manifest import (
    MANIFEST,
    Manifest,
    entries_of,
    missing_or_cut,
    read_manifest,
)

logger = logging.getLogger(__name__)

_BEGUN = "begun"
_SPENT = "spent"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A finished part.

    Args:
        folder: Where its files are.
        manifest: What is known of it.
        reused: Whether it was there already when it was asked for.
    """

    folder: Path
    manifest: Manifest
    reused: bool

    @property
    def key(self) -> str:
        """The hash of its recipe."""
        return self.manifest.key


@dataclass(kw_only=True)
class Claim:
    """A part that this worker found, or is the one to make.

    Args:
        recipe: What it is made of.
        target: Where it is to stand.
        folder: Of the work on it.
        part: The part, once it is there.
    """

    recipe: Recipe
    target: Path
    folder: Path
    part: Part | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def out(self) -> Path:
        """An empty folder; what is in it when the part is finished is the part."""
        return self.folder / "out"

    @property
    def work(self) -> Path:
        """A folder that stays where making is cut short, for who goes on; gone when finished."""
        return self.folder / "kept"

    def finish(self, seconds: float | None = None) -> Part:
        """Put what is in ``out`` in its place.

        Args:
            seconds: What making it took, all attempts together; None: as the clock says.
        """
        if seconds is None:
            seconds = float(_text(self.folder / _SPENT) or 0) + time.monotonic() - self._started
        manifest = Manifest(
            stage=self.recipe.stage,
            key=self.recipe.key,
            recipe=self.recipe.to_dict(),
            seconds=round(seconds, 3),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            files=entries_of(self.out),
        )
        write_json(self.out / MANIFEST, manifest.model_dump(mode="json"))
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.out.rename(self.target)
        shutil.rmtree(self.folder)
        self.part = Part(folder=self.target, manifest=manifest, reused=False)
        return self.part

    def begin(self) -> None:
        """Clear what a killed worker left half, keep what it left to go on from."""
        spent = float(_text(self.folder / _SPENT) or 0) + _seconds_of_last(self.folder)
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        self.work.mkdir(exist_ok=True)
        (self.folder / _SPENT).write_text(str(spent), encoding="ascii")
        (self.folder / _BEGUN).write_text("", encoding="ascii")


class Store:
    """Keeps parts by their recipes; several processes and machines may share its folder.

    Args:
        root: Its folder, made when the first part is.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()

    def obtain(self, recipe: Recipe, make: Callable[[Path, Path], None]) -> Part:
        """The part of a recipe, from the store or made now.

        Of several workers that ask at once one makes it and the others wait.

        Args:
            recipe: What it is made of.
            make: Called with an empty folder to write the part into, and with one in which
                unfinished work of a killed worker may lie and which is removed at the end.

        Raises:
            Exception: What ``make`` raises; nothing of the part is kept then but its work.
            OSError: The store cannot be written to.
        """
        with self.claim(recipe) as claim:
            if claim.part is None:
                make(claim.out, claim.work)
                return claim.finish()
            return claim.part

    @contextmanager
    def claim(self, recipe: Recipe) -> Iterator[Claim]:
        """The part of a recipe, or the right to make it, held inside the block.

        Args:
            recipe: What it is made of.

        Yields:
            The claim. Where it has no ``part``, this worker is the one to make it: fill ``out``
            and call ``finish``; leaving the block without that gives the claim back.
        """
        name = f"{recipe.stage}-{recipe.key}"
        claim = Claim(
            recipe=recipe,
            target=self.folder(recipe.stage, recipe.key),
            folder=self.root / "work" / name,
            part=self.find(recipe),
        )
        if claim.part is not None:
            yield claim
            return
        with self.lock(recipe.stage, recipe.key):
            claim.part = self.find(recipe)
            if claim.part is None:
                _clear(claim.target)
                claim.begin()
            yield claim

    def find(self, recipe: Recipe) -> Part | None:
        """The part of a recipe where it is there and whole by names and sizes; else None."""
        folder = self.folder(recipe.stage, recipe.key)
        part = part_in(folder)
        if part is None or next(missing_or_cut(folder, part.manifest), None) is not None:
            return None
        # When it was last of use, which `prune` goes by; a store may be there to be read only.
        with suppress(OSError):
            os.utime(folder / MANIFEST)
        return part

    def folder(self, stage: str, key: str) -> Path:
        """Where a part stands."""
        return self.root / "parts" / stage / key

    def lock(self, stage: str, key: str, *, timeout: float = -1) -> FileLock:
        """What the maker of a part holds; free again when its process is gone.

        Args:
            stage: Of the part.
            key: Of the part.
            timeout: Seconds to wait for it; -1: for ever.
        """
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{stage}-{key}", timeout=timeout)

    def parts(self) -> Iterator[Part]:
        """All parts whose manifest can be read, by stage and key."""
        for folder in self.folders():
            if (part := part_in(folder)) is not None:
                yield part

    def folders(self) -> list[Path]:
        """The folders of all parts, broken ones, too, by stage and key."""
        return sorted(path for path in (self.root / "parts").glob("*/*") if path.is_dir())


def part_in(folder: Path) -> Part | None:
    """The part in a folder; None where there is none or its manifest cannot be read."""
    try:
        return Part(folder=folder, manifest=read_manifest(folder), reused=True)
    except ArtifactError:
        return None


def _clear(folder: Path) -> None:
    """Remove a broken part; it is not whole, or its finder would have used it."""
    if folder.exists():
        logger.warning("%s is not whole: it is made again", folder)
        shutil.rmtree(folder)


def _seconds_of_last(folder: Path) -> float:
    """What the last attempt took, if it was killed: from its begin to the last file it wrote."""
    begun = folder / _BEGUN
    if not begun.exists():
        return 0.0
    times = [path.stat().st_mtime for path in folder.rglob("*")]
    return max(0.0, max(times) - begun.stat().st_mtime)


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.exists() else ""
