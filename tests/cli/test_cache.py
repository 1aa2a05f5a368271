import json
import os
import time
from pathlib import Path

import pytest

from routedk.artifacts import Artifact, ArtifactStore, Recipe

from .conftest import Run


@pytest.fixture(autouse=True)
def _cache_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def artifacts(tmp_path: Path) -> list[Artifact]:
    """An expert of 3 MB unused for two days, and a program of 1 MB of a minute ago."""
    store = ArtifactStore(tmp_path / "store")
    found = []
    for stage, size, seconds in (("expert", 3_000_000, 2 * 86_400), ("program", 1_000_000, 60)):

        def make(out: Path, work: Path, size: int = size) -> None:
            (out / "a").write_bytes(bytes(size))

        artifact = store.obtain(Recipe(stage=stage, inputs={}, settings={}), make)
        then = time.time() - seconds - 1
        for path in (artifact.folder, *artifact.folder.iterdir()):
            os.utime(path, (then, then))
        found.append(artifact)
    return found


def test_list(run: Run, artifacts: list[Artifact]) -> None:
    code, out, _ = run("cache", "list")
    assert code == 0
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line
    ]
    assert [row[:4] for row in rows] == [
        ["expert", artifacts[0].key[:12], "3.0 MB", "2.0"],
        ["program", artifacts[1].key[:12], "1.0 MB", "0.0"],
    ]
    assert "Artifacts: 2, 4.0 MB" in out


def test_list_as_json(run: Run, artifacts: list[Artifact]) -> None:
    (entry,) = json.loads(run("cache", "list", "--stage", "program", "--json")[1])
    assert (entry["stage"], entry["key"]) == ("program", artifacts[1].key)
    assert entry["size"] == sum(path.stat().st_size for path in artifacts[1].folder.iterdir())
    assert Path(entry["folder"]) == artifacts[1].folder
    assert entry["seconds"] == artifacts[1].seconds
    assert entry["used"] <= entry["created"]


def test_nothing_is_kept_yet(run: Run) -> None:
    assert run("cache", "list")[:2] == (0, "Artifacts: 0, 0 B\n")
    assert run("cache", "prune", "--older-than", "0")[:2] == (0, "Removed: 0, 0 B\n")


def test_prune(run: Run, artifacts: list[Artifact]) -> None:
    assert (
        "Would be removed: 1, 3.0 MB" in run("cache", "prune", "--older-than", "1", "--dry-run")[1]
    )
    assert all(artifact.folder.exists() for artifact in artifacts)
    assert "Removed: 1, 3.0 MB" in run("cache", "prune", "--max-size", "1.5MB")[1]
    assert [artifact.folder.exists() for artifact in artifacts] == [False, True]
    run("cache", "prune", "--stage", "program")
    assert not artifacts[1].folder.exists()


def test_work_that_was_left_unfinished(run: Run, tmp_path: Path) -> None:
    def fail(out: Path, work: Path) -> None:
        raise RuntimeError

    recipe = Recipe(stage="expert", inputs={}, settings={})
    with pytest.raises(RuntimeError):
        ArtifactStore(tmp_path / "store").obtain(recipe, fail)
    assert "unfinished" in run("cache", "list")[1]
    assert "Removed: 0" in run("cache", "prune", "--older-than", "1")[1]
    assert "Removed: 1" in run("cache", "prune", "--older-than", "0")[1]
    assert json.loads(run("cache", "list", "--json")[1]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prune",), "nothing says what to remove: name stages, an age or a size"),
        (
            ("prune", "--max-size", "lots"),
            "'--max-size': could not parse value and unit from byte",
        ),
        (("prune", "--older-than", "-1"), "--older-than=-1.0: it must be at least 0"),
        (("list", "--store", "nowhere"), "'nowhere' does not exist"),
    ],
)
def test_what_is_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("cache", *arguments)
    assert code == 2
    assert message in err
