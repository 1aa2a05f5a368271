import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from routedk import __version__
from routedk.artifacts import ArtifactStore, Recipe, check_output, copy_artifact
from routedk.artifacts.store import MANIFEST
from routedk.artifacts.upkeep import entries
from routedk.errors import ArtifactError, SettingError

WORKER = Path(__file__).with_name("store_worker.py")


def recipe(number: int = 1, stage: str = "toy") -> Recipe:
    return Recipe(stage=stage, inputs={}, settings={"number": number})


def write(out: Path, work: Path) -> None:
    (out / "deep").mkdir()
    (out / "deep" / "text.txt").write_text("four")


def never(out: Path, work: Path) -> None:
    raise AssertionError("made twice")


def test_an_artifact_is_made_once_and_found_afterwards(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    assert store.find(recipe()) is None
    made = store.obtain(recipe(), write)
    found = ArtifactStore(tmp_path / "store").obtain(recipe(), never)
    assert (made.reused, found.reused) == (False, True)
    assert (found.folder, found.seconds, found.key) == (made.folder, made.seconds, recipe().key)
    assert made.folder == tmp_path / "store" / "artifacts" / "toy" / recipe().key
    assert (made.folder / "deep" / "text.txt").read_text() == "four"
    assert not any((tmp_path / "store" / "work").iterdir())
    other = store.obtain(recipe(2), write)
    assert not other.reused
    assert [entry.key for entry in entries(store)] == sorted([made.key, other.key])


def test_a_wait_names_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("routedk.artifacts.store._QUIET", 0.0)
    store, begun, go = ArtifactStore(tmp_path), threading.Event(), threading.Event()

    def slowly(out: Path, work: Path) -> None:
        begun.set()
        assert go.wait(30)

    def told(record: logging.LogRecord) -> bool:
        go.set()  # What is waited for ends only after the wait was explained.
        return True

    maker = threading.Thread(target=store.obtain, args=(recipe(), slowly))
    maker.start()
    assert begun.wait(30)
    logging.getLogger("routedk.artifacts.store").addFilter(told)
    try:
        with caplog.at_level(logging.INFO, "routedk"):
            assert ArtifactStore(tmp_path).obtain(recipe(), never).reused
    finally:
        logging.getLogger("routedk.artifacts.store").removeFilter(told)
        maker.join()
    lock = tmp_path / "locks" / f"toy-{recipe().key}"
    assert f"another process makes toy: waiting for {lock}" in caplog.text


def test_the_manifest_says_what_made_it(tmp_path: Path) -> None:
    made = ArtifactStore(tmp_path).obtain(recipe(), write)
    manifest = json.loads((made.folder / MANIFEST).read_text())
    assert manifest.pop("created").endswith("+00:00")
    assert manifest == {
        "stage": "toy",
        "version": __version__,
        "inputs": {},
        "settings": {"number": 1},
        "key": made.key,
        "seconds": made.seconds,
    }


def test_a_failing_maker_leaves_no_part_but_its_work(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def fail(out: Path, work: Path) -> None:
        (out / "half.txt").write_text("ha")
        (work / "checkpoint").write_text("step 3")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        store.obtain(recipe(), fail)
    assert store.find(recipe()) is None

    def resume(out: Path, work: Path) -> None:
        assert not list(out.iterdir())
        (out / "whole.txt").write_text((work / "checkpoint").read_text())

    made = store.obtain(recipe(), resume)
    assert (made.folder / "whole.txt").read_text() == "step 3"
    assert {path.name for path in made.folder.iterdir()} == {"whole.txt", MANIFEST}
    assert not any((tmp_path / "work").iterdir())


@pytest.mark.parametrize("damaged", [None, "", '{"stage": "to', "[]", "{}", "\0\0"])
def test_what_has_no_manifest_is_made_again(tmp_path: Path, damaged: str | None) -> None:
    store = ArtifactStore(tmp_path)
    made = store.obtain(recipe(), write)
    (made.folder / MANIFEST).unlink()
    if damaged is not None:
        (made.folder / MANIFEST).write_text(damaged)
    assert entries(store)[0].seconds is None
    assert store.find(recipe()) is None
    assert not store.obtain(recipe(), write).reused
    assert store.obtain(recipe(), never).reused


def test_two_threads_make_an_artifact_once(tmp_path: Path) -> None:
    made: list[int] = []
    barrier = threading.Barrier(2)
    reused: list[bool] = []

    def make(out: Path, work: Path) -> None:
        made.append(1)
        time.sleep(0.05)
        write(out, work)

    def ask() -> None:
        barrier.wait()
        reused.append(ArtifactStore(tmp_path).obtain(recipe(), make).reused)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), sorted(reused)) == (1, [False, True])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts a process that wants the artifact, and makes it once the file ``go`` is there."""
    workers: list[subprocess.Popen[bytes]] = []

    def run() -> "subprocess.Popen[bytes]":
        worker = subprocess.Popen([sys.executable, str(WORKER), str(tmp_path)])
        workers.append(worker)
        return worker

    yield run
    for worker in workers:
        worker.kill()
        worker.wait()


def wait_for(path: Path) -> None:
    """Wait for another process to write a file."""
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not appear")


Start = Callable[[], "subprocess.Popen[bytes]"]


def test_two_processes_make_an_artifact_once(tmp_path: Path, start: Start) -> None:
    first = start()
    wait_for(tmp_path / "log")
    second = start()
    wait_for(tmp_path / f"asks-{second.pid}")
    (tmp_path / "go").write_text("")
    assert (first.wait(30), second.wait(30)) == (0, 0)
    assert (tmp_path / "log").read_text() == "False\n"
    assert ArtifactStore(tmp_path / "store").find(recipe()) is not None


def test_a_killed_maker_holds_nothing_and_leaves_nothing_half(tmp_path: Path, start: Start) -> None:
    work = tmp_path / "store" / "work" / f"toy-{recipe().key}"
    first = start()
    wait_for(work / "work" / "checkpoint")
    first.kill()
    first.wait()
    store = ArtifactStore(tmp_path / "store")
    assert store.find(recipe()) is None
    (tmp_path / "go").write_text("")
    second = start()
    assert second.wait(30) == 0
    made = store.find(recipe())
    assert made is not None
    names = {path.name for path in made.folder.iterdir()}
    assert names == {f"half-{second.pid}.txt", "whole.txt", MANIFEST}
    # The second one found what the first had left to resume from.
    assert (tmp_path / "log").read_text() == "False\nTrue\n"
    assert not work.exists()


def test_a_copy_appears_where_a_user_wants_it(tmp_path: Path) -> None:
    artifact = ArtifactStore(tmp_path / "store").obtain(recipe(), write)
    copy_artifact(artifact.folder, tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy" / "deep" / "text.txt").read_text() == "four"
    (tmp_path / "deep" / "copy" / "old.txt").write_text("")
    copy_artifact(artifact.folder, tmp_path / "deep" / "copy")
    assert sorted(path.name for path in (tmp_path / "deep" / "copy").iterdir()) == [
        "deep",
        MANIFEST,
    ]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy"]
    (tmp_path / "mine").mkdir()
    check_output(tmp_path / "mine")
    (tmp_path / "mine" / "thesis.txt").write_text("")
    (tmp_path / "mine" / MANIFEST).write_text('{"name": "web", "version": 3}')
    for place in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(ArtifactError, match="exists already: name another folder"):
            copy_artifact(artifact.folder, place)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_store_is_named_by_itself_by_its_folder_or_by_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    store = ArtifactStore.of(None)
    assert store.root == tmp_path / "store"
    assert ArtifactStore.of(store) is store
    assert ArtifactStore.of(str(tmp_path)).root == tmp_path
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="file: it is a file, name a folder"):
        ArtifactStore(tmp_path / "file")
