import json
import os
import time
from pathlib import Path

import pytest

from routedk.artifacts import Artifact, ArtifactStore, Recipe
from routedk.artifacts.manifest import MANIFEST

from .conftest import Run


@pytest.fixture(autouse=True)
def _cache_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def parts(tmp_path: Path) -> list[Artifact]:
    """An expert of 3 kB unused for two days, and a program of 1 kB of a minute ago."""
    store = ArtifactStore(tmp_path / "store")
    found = []
    for stage, size, seconds in (("expert", 3000, 2 * 86_400), ("program", 1000, 60)):

        def make(out: Path, work: Path, size: int = size) -> None:
            (out / "a").write_bytes(bytes(size))

        recipe = Recipe(stage=stage, inputs={}, settings={})
        part = store.obtain(recipe, make)
        then = time.time() - seconds - 1
        os.utime(part.folder / MANIFEST, (then, then))
        found.append(part)
    return found


def test_list(run: Run, parts: list[Artifact]) -> None:
    code, out, _ = run("cache", "list")
    assert code == 0
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line
    ]
    assert [row[:4] for row in rows] == [
        ["expert", parts[0].key[:12], "3.0 KB", "2.0"],
        ["program", parts[1].key[:12], "1.0 KB", "0.0"],
    ]
    assert "2 artifacts, 4.0 KB" in out


def test_list_as_json(run: Run, parts: list[Artifact]) -> None:
    (entry,) = json.loads(run("cache", "list", "--stage", "program", "--json")[1])
    assert entry["key"] == parts[1].key
    assert (entry["stage"], entry["size"]) == ("program", 1000)
    assert Path(entry["folder"]) == parts[1].folder
    assert entry["created"].endswith("+00:00")
    assert entry["used"] <= entry["created"]


def test_nothing_is_kept_yet(run: Run) -> None:
    code, out, _ = run("cache", "list")
    assert (code, out) == (0, "0 artifacts, 0 B\n")
    assert run("cache", "verify")[:2] == (0, "All artifacts are whole.\n")
    assert "0 artifacts" in run("cache", "prune", "--older-than", "0")[1]


def test_prune(run: Run, parts: list[Artifact]) -> None:
    code, out, _ = run("cache", "prune", "--older-than", "1", "--dry-run")
    assert code == 0
    assert "1 artifacts, 3.0 KB, and 0 unfinished would be removed" in out
    assert all(part.folder.exists() for part in parts)
    assert (
        "1 artifacts, 3.0 KB, and 0 unfinished removed"
        in run("cache", "prune", "--max-size", "1.5KB")[1]
    )
    assert [part.folder.exists() for part in parts] == [False, True]
    run("cache", "prune", "--stage", "program")
    assert not parts[1].folder.exists()


def test_prune_takes_unfinished_work(run: Run, tmp_path: Path) -> None:
    recipe = Recipe(stage="expert", inputs={}, settings={})
    store = ArtifactStore(tmp_path / "store")
    here = store.work_folder("expert", recipe.key)

    def killed(out: Path, work: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.obtain(recipe, killed)
    assert "and 0 unfinished" in run("cache", "prune", "--older-than", "1")[1]
    assert "and 1 unfinished would be" in run("cache", "prune", "--older-than", "0", "--dry-run")[1]
    assert here.exists()
    assert "and 1 unfinished removed" in run("cache", "prune", "--older-than", "0")[1]
    assert not here.exists()


def test_verify(run: Run, parts: list[Artifact]) -> None:
    assert run("cache", "verify") == (0, "All artifacts are whole.\n", "")
    (parts[0].folder / "a").write_bytes(bytes(2999) + b"1")
    code, _, err = run("cache", "verify")
    assert code == 1
    assert f"expert/{parts[0].key}: a has SHA-256 " in err
    assert "1 artifacts are broken: --remove removes them, and they are made again" in err
    assert run("cache", "verify", "--stage", "program")[0] == 0
    code, _, err = run("cache", "verify", "--remove")
    assert (code, "1 artifacts are broken: removed" in err) == (1, True)
    assert run("cache", "verify")[0] == 0
    assert not parts[0].folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prune",), "nothing says what to remove: name stages, an age or a size"),
        (("prune", "--max-size", "lots"), "--max-size 'lots': a number of bytes, or one with a"),
        (("prune", "--older-than", "-1"), "older_than=-1.0: it must be at least 0"),
        (("prune", "--older-than", "nan"), "older_than=nan: it must be at least 0 and finite"),
        (("list", "--store", "nowhere"), "--store nowhere: no such folder"),
    ],
)
def test_what_is_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("cache", *arguments)
    assert code == 2
    assert message in err
