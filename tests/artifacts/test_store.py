import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from routedk.errors import ArtifactError
from routedk.artifacts.keys import Recipe
from routedk.artifacts.manifest import MANIFEST, read_manifest
from routedk.artifacts.store import Store

WORKER = Path(__file__).with_name("store_worker.py")


def recipe(number: int = 1, stage: str = "toy") -> Recipe:
    return Recipe(stage=stage, version="1", inputs={}, settings={"number": number})


def write(out: Path, work: Path) -> None:
    (out / "deep").mkdir()
    (out / "deep" / "text.txt").write_text("four")


def never(out: Path, work: Path) -> None:
    raise AssertionError("made twice")


def test_a_part_is_made_once_and_found_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.find(recipe()) is None
    made = store.obtain(recipe(), write)
    found = Store(tmp_path / "store").obtain(recipe(), never)
    assert (made.reused, found.reused) == (False, True)
    assert (found.folder, found.manifest, found.key) == (made.folder, made.manifest, recipe().key)
    assert made.folder == tmp_path / "store" / "parts" / "toy" / recipe().key
    assert (made.folder / "deep" / "text.txt").read_text() == "four"
    assert not any((tmp_path / "store" / "work").iterdir())
    other = store.obtain(recipe(2), write)
    assert not other.reused
    assert [part.key for part in store.parts()] == sorted([made.key, other.key])


def test_the_manifest_says_what_made_it(tmp_path: Path) -> None:
    part = Store(tmp_path).obtain(recipe(), write)
    document = json.loads((part.folder / MANIFEST).read_text())
    assert document["recipe"] == {
        "stage": "toy",
        "version": "1",
        "inputs": {},
        "settings": {"number": 1},
    }
    # printf four | sha256sum
    digest = "04efaf080f5a3e74e1c29d1ca6a48569382cbbcd324e8d59d2b83ef21c039f00"
    assert document["files"] == {"deep/text.txt": {"size": 4, "sha256": digest}}
    assert part.manifest.size == 4
    assert part.manifest.created.endswith("+00:00")


def test_a_failing_maker_leaves_no_part_but_its_work(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(out: Path, work: Path) -> None:
        (out / "half.txt").write_text("ha")
        (work / "checkpoint").write_text("step 3")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        store.obtain(recipe(), fail)
    assert store.find(recipe()) is None
    assert not list(store.parts())

    def go_on(out: Path, work: Path) -> None:
        assert not list(out.iterdir())
        (out / "whole.txt").write_text((work / "checkpoint").read_text())

    part = store.obtain(recipe(), go_on)
    assert (part.folder / "whole.txt").read_text() == "step 3"
    assert list(part.manifest.files) == ["whole.txt"]
    assert not any((tmp_path / "work").iterdir())


def test_a_part_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for harm in (
        lambda folder: (folder / "deep" / "text.txt").write_text("fours"),
        lambda folder: (folder / "deep" / "text.txt").unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text("{"),
    ):
        part = store.obtain(recipe(), write)
        harm(part.folder)
        assert not store.obtain(recipe(), write).reused
        assert store.obtain(recipe(), never).reused


def test_time_of_killed_attempts_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(out: Path, work: Path) -> None:
        (work / "checkpoint").write_text("")
        later = time.time() + 100
        os.utime(work / "checkpoint", (later, later))
        raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            store.obtain(recipe(), fail)
        # The clock goes on: what is there is as old as its begin, or older.
    part = store.obtain(recipe(), write)
    assert part.manifest.seconds >= 100
    assert store.obtain(recipe(), never).manifest.seconds == part.manifest.seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the manifest is damaged: it: Input should be a valid dict"),
        ('{"schema_version": 2}', "the manifest is damaged: schema_version: Input should be 1"),
        ("{", "invalid JSON"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read_manifest(tmp_path)


def test_two_threads_make_a_part_once(tmp_path: Path) -> None:
    made: list[int] = []
    barrier = threading.Barrier(2)
    reused: list[bool] = []

    def make(out: Path, work: Path) -> None:
        made.append(1)
        time.sleep(0.05)
        write(out, work)

    def ask() -> None:
        barrier.wait()
        reused.append(Store(tmp_path).obtain(recipe(), make).reused)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), sorted(reused)) == (1, [False, True])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts a process that wants the part, and makes it once the file ``go`` is there."""
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
    raise AssertionError(f"{path} has not come")


Start = Callable[[], "subprocess.Popen[bytes]"]


def test_two_processes_make_a_part_once(tmp_path: Path, start: Start) -> None:
    first = start()
    wait_for(tmp_path / "log")
    second = start()
    wait_for(tmp_path / f"asks-{second.pid}")
    (tmp_path / "go").write_text("")
    assert (first.wait(30), second.wait(30)) == (0, 0)
    assert (tmp_path / "log").read_text() == "False\n"
    assert Store(tmp_path / "store").find(recipe()) is not None


def test_a_killed_maker_holds_nothing_and_leaves_nothing_half(tmp_path: Path, start: Start) -> None:
    work = tmp_path / "store" / "work" / f"toy-{recipe().key}"
    first = start()
    wait_for(work / "kept" / "checkpoint")
    first.kill()
    first.wait()
    store = Store(tmp_path / "store")
    assert store.find(recipe()) is None
    assert list(store.folders()) == []
    (tmp_path / "go").write_text("")
    second = start()
    assert second.wait(30) == 0
    part = store.find(recipe())
    assert part is not None
    assert list(part.manifest.files) == [f"half-{second.pid}.txt", "whole.txt"]
    # The second one found what the first had left to go on from.
    assert (tmp_path / "log").read_text() == "False\nTrue\n"
    assert not work.exists()
