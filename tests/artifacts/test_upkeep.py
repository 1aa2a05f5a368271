import os
import time
from pathlib import Path

import pytest
from pydantic import ByteSize, TypeAdapter

from routedk.artifacts import Artifact, ArtifactStore, Recipe
from routedk.artifacts.store import MANIFEST
from routedk.artifacts.upkeep import PruneConfig, entries, prune
from routedk.errors import SettingError

DAY = 86_400
BYTES = 10_000


def size(text: str) -> ByteSize:
    return TypeAdapter(ByteSize).validate_python(text)


def recipe(stage: str, days_ago: float) -> Recipe:
    return Recipe(stage=stage, inputs={}, settings={"days": days_ago})


def age(folder: Path, days: float) -> None:
    """Date everything in a folder to so many days ago."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - days * DAY,) * 2)


def add(store: ArtifactStore, stage: str, days_ago: float) -> Artifact:
    """An artifact last used so many days ago, of so many bytes with its manifest."""

    def make(out: Path, work: Path) -> None:
        (out / "a").write_bytes(b"")

    made = store.obtain(recipe(stage, days_ago), make)
    (made.folder / "a").write_bytes(bytes(BYTES - (made.folder / MANIFEST).stat().st_size))
    age(made.folder, days_ago)
    return made


def abandon(store: ArtifactStore, stage: str, days_ago: float) -> Path:
    """The work folder of a maker that failed so many days ago."""

    def fail(out: Path, work: Path) -> None:
        (work / "checkpoint").write_bytes(bytes(BYTES))
        assert prune(store, PruneConfig(stage=(stage,))) == []
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.obtain(recipe(stage, days_ago), fail)
    work = store.work_folder(stage, recipe(stage, days_ago).key)
    age(work, days_ago)
    return work


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.mark.parametrize(
    ("config", "days"),
    [
        (PruneConfig(older_than=2.5), [6, 5, 4, 3]),
        (PruneConfig(older_than=2.5, stage=("toy",)), [5, 3]),
        (PruneConfig(stage=("to-two",)), [6, 4, 2]),
        (PruneConfig(max_size=size("30KB")), [6, 5, 4]),
        (PruneConfig(max_size=size("29999")), [6, 5, 4, 3]),
        (PruneConfig(max_size=size("60kB")), []),
        (PruneConfig(max_size=size("0"), stage=("to-two",)), [6, 4, 2]),
        (PruneConfig(older_than=5.5, max_size=size("40 KB")), [6, 5]),
        (PruneConfig(older_than=2.5, dry_run=True), [6, 5, 4, 3]),
    ],
)
def test_what_goes(store: ArtifactStore, config: PruneConfig, days: list[int]) -> None:
    folders = {6: abandon(store, "to-two", 6)}
    for ago in (1, 2, 3, 4, 5):
        folders[ago] = add(store, ("to-two", "toy")[ago % 2], ago).folder
    assert [round((time.time() - entry.used) / DAY) for entry in prune(store, config)] == days
    left = {ago for ago, folder in folders.items() if folder.exists()}
    assert left == set(folders) - (set() if config.dry_run else set(days))
    assert {entry.folder for entry in entries(store)} == {folders[ago] for ago in left}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing says what to remove: name stages, an age or a size"),
        ({"older_than": -1.0}, "older_than=-1.0: it must be at least 0"),
        ({"older_than": float("nan")}, "older_than=nan: it must be at least 0"),
    ],
)
def test_what_says_what_to_remove_is_checked(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        PruneConfig(**values)  # type: ignore[arg-type]


def test_finding_an_artifact_is_using_it(store: ArtifactStore) -> None:
    add(store, "toy", 3.0)
    assert time.time() - entries(store)[0].used > 2 * DAY
    assert store.find(recipe("toy", 3.0)) is not None
    assert time.time() - entries(store)[0].used < DAY
    assert prune(store, PruneConfig(older_than=1)) == []


def test_what_a_process_is_making_is_left_alone(store: ArtifactStore) -> None:
    free, held = add(store, "toy", 1.0), add(store, "toy", 2.0)
    # As another worker would hold it: filelock knows a lock by its file handle.
    with store.lock("toy", held.key):
        assert [entry.key for entry in prune(store, PruneConfig(stage=("toy",)))] == [free.key]
    assert [entry.key for entry in entries(store)] == [held.key]


def test_a_removal_that_was_cut_short_leaves_no_artifact(store: ArtifactStore) -> None:
    made = add(store, "toy", 1.0)
    (made.folder / MANIFEST).unlink()
    (entry,) = entries(store)
    assert (entry.stage, entry.key, entry.seconds) == ("toy", made.key, None)
    assert prune(store, PruneConfig(max_size=size("0"))) == [entry]
    assert not made.folder.exists()
