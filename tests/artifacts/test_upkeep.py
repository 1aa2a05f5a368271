import os
import time
from pathlib import Path

import pytest

from routedk.errors import SettingError
from routedk.artifacts.keys import Recipe
from routedk.artifacts.manifest import MANIFEST
from routedk.artifacts.store import Part, Store
from routedk.artifacts.upkeep import (
    PruneRules,
    abandoned,
    broken,
    last_used,
    pruned,
    remove,
    remove_work,
)

DAY = 86_400


def add(store: Store, stage: str, size: int, days_ago: float) -> Part:
    """A part of so many bytes, last of use so many days ago."""
    recipe = Recipe(stage=stage, version="1", inputs={}, settings={"days": days_ago})
    part = store.obtain(recipe, lambda out, work: (out / "a").write_bytes(bytes(size)) and None)
    then = time.time() - days_ago * DAY
    os.utime(part.folder / MANIFEST, (then, then))
    return part


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


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
def test_what_goes(store: Store, rules: PruneRules, days: list[float]) -> None:
    for place, ago in enumerate((1.0, 2.0, 3.0, 4.0, 5.0)):
        add(store, ("toy", "other")[place % 2], 10, ago)
    going = pruned(store, rules)
    assert [part.manifest.recipe["settings"]["days"] for part in going] == days


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing says which parts may go: name stages, an age or a size"),
        ({"older_than": -1.0}, "older_than=-1.0: it must be at least 0"),
        ({"older_than": float("nan")}, "older_than=nan: it must be at least 0 and finite"),
        ({"older_than": float("inf")}, "older_than=inf: it must be at least 0 and finite"),
        ({"max_bytes": -1}, "max_bytes=-1: it must be at least 0"),
    ],
)
def test_rules_are_checked(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        PruneRules(**values)  # type: ignore[arg-type]


def test_finding_a_part_is_using_it(store: Store) -> None:
    part = add(store, "toy", 1, 3.0)
    recipe = Recipe(stage="toy", version="1", inputs={}, settings={"days": 3.0})
    assert time.time() - last_used(part) > 2 * DAY
    assert store.find(recipe) is not None
    assert time.time() - last_used(part) < DAY
    assert pruned(store, PruneRules(older_than=1)) == []


def test_what_is_being_made_is_left_alone(store: Store) -> None:
    part, held = add(store, "toy", 1, 1.0), add(store, "toy", 1, 2.0)
    # As another worker would hold it: filelock knows a lock by its file handle.
    with store.lock("toy", held.key):
        assert remove(store, [part.folder, held.folder]) == [part.folder]
    assert [one.key for one in store.parts()] == [held.key]
    assert remove(store, [held.folder, part.folder]) == [held.folder]
    assert list((store.root / "work").iterdir()) == []


def test_unfinished_work(store: Store) -> None:
    recipe = Recipe(stage="toy-two", version="1", inputs={}, settings={})
    with store.claim(recipe) as claim:
        assert abandoned(store) == []
        (claim.work / "checkpoint").write_text("")
    assert abandoned(store) == [claim.folder]
    assert abandoned(store, older_than=1) == []
    remove_work(store, abandoned(store))
    assert not claim.folder.exists()
    assert abandoned(store) == []


def test_every_kind_of_damage_is_found(store: Store) -> None:
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
    assert "the manifest is damaged: stage: Field required" in found[parts[4].folder]
    assert found[wrong] == f"the manifest is that of toy/{parts[5].key}"
    assert list(broken(store, ("other",))) == []
