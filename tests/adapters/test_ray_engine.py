import importlib.util
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from routedk.adapters.answering import GenerateConfig
from routedk.adapters.generate import generate
from routedk.adapters.ray_engine import RayConfig, answers_on_ray
from routedk.errors import ArtifactError, MissingExtraError, RouteDKError, SettingError
from routedk.eval.predictions import prediction_record
from routedk.types import Answer, Bundle, Item, Session

ROOT = Path(__file__).parents[2]
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not here: pip install 'routedk[ray]'"
)
# Small batches, and two actors on whatever there is.
SMALL = RayConfig(actors=2, batch_size=4)
Ask = Callable[[Session], Answer]


def some(count: int, start: int = 0) -> list[Session]:
    titles = ("kettle <b>", "tea &amp;amp; cup", "rain \ud83d coat")
    return [
        Session(f"s{n}", tuple(Item(f"{n}-{k}", title) for k, title in enumerate(titles)))
        for n in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A small Ray of this process's own."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


def job(
    folder: Path, load: Callable[[], Ask], sessions: Any, ray: RayConfig = SMALL
) -> Iterator[tuple[str, str]]:
    """A job whose sessions are answered without a model."""
    return answers_on_ray(sessions, folder, GenerateConfig(threads=2), ray=ray, load=load)


def run(*arguments: Any) -> dict[str, str]:
    """The error of each session in the output of a job."""
    return dict(job(*arguments))


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder).to_pylist()
    return found


def first_two(log: Path) -> Callable[[], Ask]:
    """What bundles the first two items, and notes whom it was asked about."""

    def load() -> Ask:
        def ask(session: Session) -> Answer:
            with log.open("a") as file:
                file.write(f"{session.id}\n")
            ids = tuple(item.id for item in session.items)
            titles = " ".join(item.title for item in session.items)
            return Answer(session.id, (Bundle(ids[:2], titles, kind="mixed"),), confidence=0.5)

        return ask

    return load


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_a_bad_session_is_a_row_and_a_second_run_adds_what_is_new(tmp_path: Path) -> None:
    others = first_two(tmp_path / "log")

    def load() -> Ask:
        good = others()

        def ask(session: Session) -> Answer:
            if session.id == "s3":
                raise RuntimeError("no\nwords")
            return good(session)

        return ask

    unread = Answer("line 7", error="data.jsonl:7: invalid JSON")
    found = run(tmp_path / "out", load, [*some(5), unread, *some(5, start=5)])
    assert {name: error for name, error in found.items() if error} == {
        "s3": "RuntimeError: no words",
        "line 7": unread.error,
    }
    assert found.keys() == {f"s{n}" for n in range(10)} | {"line 7"}
    by_id = {row["session_id"]: row for row in rows(tmp_path / "out")}
    assert by_id.keys() == found.keys()
    assert [by_id[name]["bundles"] for name in ("s3", "line 7")] == [[], []]
    bundle = by_id["s9"]["bundles"][0]
    assert (bundle["items"], bundle["kind"]) == (["9-0", "9-1"], "mixed")
    # A title is as it was, but for half a surrogate pair, which no Parquet can hold.
    assert bundle["intent"] == "kettle <b> tea &amp;amp; cup rain ? coat"
    assert (by_id["s9"]["confidence"], by_id["s9"]["error"]) == (0.5, None)
    # A line that was put right is read again; what is answered is not asked for again.
    again = run(tmp_path / "out", load, some(12))
    assert again.keys() == {f"s{n}" for n in range(12)}
    assert len(rows(tmp_path / "out")) == 12
    asked = (tmp_path / "log").read_text().split()
    assert sorted(asked) == sorted(f"s{n}" for n in range(12) if n != 3)


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_a_model_that_fails_for_all_ends_the_job_and_leaves_no_part(tmp_path: Path) -> None:
    def failing() -> Ask:
        def ask(session: Session) -> Answer:
            raise OSError("the key is wrong")

        return ask

    def refusing() -> Ask:
        raise SettingError("there is no such program")

    eight = RayConfig(actors=1, batch_size=8)
    with pytest.raises(RouteDKError, match=r"the key is wrong.*run the same command again"):
        run(tmp_path, failing, some(16), eight)
    with pytest.raises(SettingError, match=r"^there is no such program$"):
        run(tmp_path, refusing, some(16), eight)
    assert rows(tmp_path) == []
    assert len(run(tmp_path, first_two(tmp_path / ".log"), some(16))) == 16


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_an_actor_that_dies_is_replaced(tmp_path: Path) -> None:
    log, died = tmp_path / "log", tmp_path / "died"
    others = first_two(log)

    def load() -> Ask:
        good = others()

        def ask(session: Session) -> Answer:
            if session.id == "s6" and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return good(session)

        return ask

    found = run(tmp_path / "out", load, some(24))
    assert died.exists()
    assert found == {f"s{n}": "" for n in range(24)}
    assert len(rows(tmp_path / "out")) == 24
    # At most its batch was repeated.
    assert {name for name, times in Counter(log.read_text().split()).items() if times > 1} <= {
        f"s{n}" for n in range(4, 8)
    }


DRIVER = """
import sys, time
from pathlib import Path
from routedk.adapters.ray_engine import RayConfig, answers_on_ray
from routedk.types import Answer, Item, Session

log = Path("log")

def load():
    def ask(session):
        time.sleep(0.02)
        with log.open("a") as file:
            file.write(session.id + "\\n")
        return Answer(session.id)
    return ask

def main():
    import ray
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=10**8)
    sessions = [Session(f"s{n}", (Item("a", "kettle"), Item("b", "mug"))) for n in range(80)]
    settings = RayConfig(actors=2, batch_size=8)
    for _ in answers_on_ray(sessions, "out", ray=settings, load=load):
        print(1, flush=True)

main()
"""


@needs_ray
def test_a_killed_driver_resumes(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    log, out = tmp_path / "log", tmp_path / "out"
    path = os.pathsep.join(filter(None, sys.path))

    def driver() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "driver.py"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "RAY_worker_niceness": "0"},
        )

    with driver() as killed:
        assert killed.stdout is not None
        for _ in range(3 * 8):
            assert killed.stdout.readline()
        killed.kill()
    finished = {row["session_id"] for row in rows(out)}
    assert 24 <= len(finished) < 80
    before = log.read_text().split()
    with driver() as resumed:
        said = resumed.communicate()[1]
        assert resumed.returncode == 0, said.decode()
    assert sorted(row["session_id"] for row in rows(out)) == sorted(f"s{n}" for n in range(80))
    # Repeated is what was under way, or answered and not yet written.
    assert not finished & {*log.read_text().split()[len(before) :]}
    assert not [*out.glob("*.tmp")]


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_the_same_bundles_as_in_this_process(student_folder: Path, tmp_path: Path) -> None:
    config = GenerateConfig(student=str(student_folder), threads=2)
    bad = Answer("line 2", error="data.jsonl:2: broken")
    asked = [*some(3), bad, *some(3, start=3)]
    here = generate(asked, config, store=tmp_path / "store")
    one = RayConfig(actors=1, batch_size=4)
    there = generate(asked, config, engine="ray", ray=one, output=tmp_path / "out")
    assert [*map(prediction_record, there)] == [*map(prediction_record, here)]
    # What is there is not computed again, and not with other settings.
    assert generate(asked, config, engine="ray", ray=one, output=tmp_path / "out") == there
    other = GenerateConfig(student=str(student_folder), abstain_below=0.5)
    message = r"out: was made with a different abstain_below: None, not 0\.5; "
    with pytest.raises(SettingError, match=message):
        generate(asked, other, engine="ray", output=tmp_path / "out")
    weights = student_folder / "model.safetensors"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + b"\x01")
        with pytest.raises(SettingError, match="was made with a different student"):
            answers_on_ray(asked, tmp_path / "out", config).__next__()
    finally:
        weights.write_bytes(content)


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ArtifactError, match="exists already: name another folder, or remove it"):
        run(tmp_path, first_two(tmp_path), [])
    assert run(tmp_path / "out", first_two(tmp_path), []) == {}
    held = job(tmp_path / "out", first_two(tmp_path), [Answer("a", error="b")])
    assert next(held) == ("a", "b")
    with pytest.raises(ArtifactError, match="another run is writing it"):
        next(job(tmp_path / "out", first_two(tmp_path), []))
    held.close()  # type: ignore[attr-defined]
    with pytest.raises(SettingError, match="num_cpus=64, num_gpus=0: the cluster has 2 and 0"):
        run(tmp_path / "x", first_two(tmp_path), some(1), RayConfig(num_cpus=64))


@pytest.mark.parametrize("setting", ["actors", "num_cpus", "batch_size"])
def test_a_number_that_is_not_allowed(setting: str) -> None:
    with pytest.raises(SettingError, match=f"{setting}=0: it must be at least 1"):
        RayConfig(**{setting: 0})


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"install it with pip install 'routedk\[ray\]'"):
        run(tmp_path / "out", first_two(tmp_path), some(1))


def test_settings_of_another_engine(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="ray and output are for engine='ray'"):
        generate([], output=tmp_path)
    with pytest.raises(SettingError, match="engine='ray' takes an output"):
        generate([], engine="ray")
