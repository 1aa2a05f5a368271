import os
import time
from pathlib import Path

import pytest

from routedk.artifacts import Artifact, ArtifactStore, Recipe
from routedk.artifacts.manifest import MANIFEST
from routedk.artifacts.upkeep import (
    PruneRules,
    abandoned,
    broken,
    entries,
    prunable,
    remove,
    remove_work,
)
from routedk.errors import SettingError

DAY = 86_400


def add(store: ArtifactStore, stage: str, size: int, days_ago: float) -> Artifact:
    """A part of so many bytes, last of use so many days ago."""
    recipe = Recipe(stage=stage, inputs={}, settings={"days": days_ago})
    part = store.obtain(recipe, lambda out, work: (out / "a").write_bytes(bytes(size)) and None)
    then = time.time() - days_ago * DAY
    os.utime(part.folder / MANIFEST, (then, then))
    return part


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.mark.parametrize(
    ("rules", "days"),
    [
        (PruneRules(older_than=2.5), [5.0, 4.0, 3.0]),
        (PruneRules(older_than=2.5, stages=("toy",)), [5.0, 3.0]),
        (PruneRules(stages=("other",)), [4.0, 2.0]),
        (PruneRules(max_bytes=30), [5.0, 4.0]),
        (PruneRules(max_bytes=29), [5.0, 4.0, 3.0]),
        (PruneRules(max_bytes=50), []),
        (PruneRules(max_bytes=0, stages=("other",)), [4.0, 2.0]),
        (PruneRules(older_than=4.5, max_bytes=30), [5.0, 4.0]),
    ],
)
def test_what_goes(store: ArtifactStore, rules: PruneRules, days: list[float]) -> None:
    for place, ago in enumerate((1.0, 2.0, 3.0, 4.0, 5.0)):
        add(store, ("toy", "other")[place % 2], 10, ago)
    going = prunable(store, rules)
    assert [entry.manifest.recipe["settings"]["days"] for entry in going] == days


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing says what to remove: name stages, an age or a size"),
        ({"older_than": -1.0}, "older_than=-1.0: it must be at least 0"),
        ({"older_than": float("nan")}, "older_than=nan: it must be at least 0 and finite"),
        ({"older_than": float("inf")}, "older_than=inf: it must be at least 0 and finite"),
        ({"max_bytes": -1}, "max_bytes=-1: it must be at least 0"),
    ],
)
def test_rules_are_checked(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        PruneRules(**values)  # type: ignore[arg-type]


def test_finding_a_part_is_using_it(store: ArtifactStore) -> None:
    add(store, "toy", 1, 3.0)
    recipe = Recipe(stage="toy", inputs={}, settings={"days": 3.0})
    assert time.time() - entries(store)[0].used > 2 * DAY
    assert store.find(recipe) is not None
    assert time.time() - entries(store)[0].used < DAY
    assert prunable(store, PruneRules(older_than=1)) == []


def test_what_is_being_made_is_left_alone(store: ArtifactStore) -> None:
    part, held = add(store, "toy", 1, 1.0), add(store, "toy", 1, 2.0)
    # As another worker would hold it: filelock knows a lock by its file handle.
    with store.lock("toy", held.key):
        assert remove(store, [part.folder, held.folder]) == [part.folder]
    assert [entry.manifest.key for entry in entries(store)] == [held.key]
    assert remove(store, [held.folder, part.folder]) == [held.folder]
    assert list((store.root / "work").iterdir()) == []


def test_abandoned_work(store: ArtifactStore) -> None:
    recipe = Recipe(stage="toy-two", inputs={}, settings={})
    here = store.work_folder(recipe.stage, recipe.key)

    def killed(out: Path, work: Path) -> None:
        assert abandoned(store) == []
        (work / "checkpoint").write_text("")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.obtain(recipe, killed)
    assert abandoned(store) == [here]
    assert abandoned(store, older_than=1) == []
    remove_work(store, abandoned(store))
    assert not here.exists()
    assert abandoned(store) == []


def test_every_kind_of_damage_is_found(store: ArtifactStore) -> None:
    parts = [add(store, "toy", 4, days) for days in range(7)]
    assert list(broken(store)) == []
    (parts[0].folder / "a").write_bytes(b"\0\0\0\1")
    (parts[1].folder / "a").write_bytes(b"")
    (parts[2].folder / "a").unlink()
    (parts[3].folder / "b").write_bytes(b"")
    (parts[4].folder / MANIFEST).write_text("{}")
    wrong = parts[5].folder.rename(parts[5].folder.with_name("0" * 64))
    found = {folder: " ".join(problems) for folder, problems in broken(store)}
    assert set(found) == {*(part.folder for part in parts[:5]), wrong}
    assert "a has SHA-256 " in found[parts[0].folder]
    assert found[parts[1].folder] == "a has 0 bytes, not 4"
    assert found[parts[2].folder] == "a is missing"
    assert found[parts[3].folder] == "b is not in the manifest"
    assert "damaged manifest: stage: Field required" in found[parts[4].folder]
    assert found[wrong] == f"the manifest belongs to toy/{parts[5].key}"
    assert list(broken(store, ("other",))) == []
