"""``generate --engine ray`` against ``generate``, and after an actor and the driver are killed.

    python -m benchmarks.ray_engine --n 100000 --tiny --output ray.json

Answers n synthetic sessions on actors with one core each, kills one actor after a third and the
driver after two thirds, and resumes. Before that, ``generate`` answers the first of these sessions
on one core. Exits with 1 if a session is lost or stored twice, or a stored one is computed again.
They are answered by the packaged bundler or, with ``--tiny``, by a random student of two layers
that states the bundles, so that Ray's overhead is a larger share of the time.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from benchmarks.command import run_command
from benchmarks.validity import tiny_student
from routedk.adapters.answering import GenerateConfig, answering, stream_answers
from routedk.adapters.ray_engine import RayConfig, answers_on_ray
from routedk.types import Answer, Item, Session

_NOUNS = ("kettle", "mug", "lamp", "cable", "chair", "shirt", "tent", "socks", "camera", "case")
_STUDENT = "student"
# Starts each line that `drive` prints; Ray prints others.
_ANSWERED = "answered"


def make_sessions(n: int, seed: int) -> Iterator[Session]:
    """Sessions of two to six items, all distinct."""
    chance = random.Random(seed)
    for number in range(n):
        items = (
            Item(f"{number}-{k}", f"{chance.choice(_NOUNS)}, model {chance.randrange(10**5)}")
            for k in range(chance.randint(2, 6))
        )
        yield Session(f"s{number}", tuple(items))


def logging_load(log: Path, config: GenerateConfig) -> Callable[[], Callable[[Session], Answer]]:
    """Loads what answers like ``generate`` and logs the process and the session."""

    def load() -> Callable[[Session], Answer]:
        ask, _ = answering(config)
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        def logged(session: Session) -> Answer:
            found = config.shown(ask(session))
            os.write(file, f"{os.getpid()} {session.id}\n".encode())
            return found

        return logged

    return load


def drive(folder: Path, n: int, seed: int, actors: int, batch_size: int) -> None:
    """Answer on Ray or, without actors, in this process; print a line for each session."""
    cores = sorted(os.sched_getaffinity(0))[: max(1, actors)]
    os.sched_setaffinity(0, cores)
    sessions = make_sessions(n, seed)
    student = folder / _STUDENT
    config = GenerateConfig(student=str(student) if student.exists() else None)
    if not actors:
        for _ in stream_answers(sessions, config, store=folder / "store"):
            print(_ANSWERED, time.monotonic(), flush=True)
        return
    import ray

    ray.init("local", num_cpus=actors, include_dashboard=False, log_to_driver=False)
    settings = RayConfig(actors=actors, batch_size=batch_size)
    load = logging_load(folder / "log", config)
    for _ in answers_on_ray(sessions, folder / "out", config, ray=settings, load=load):
        print(_ANSWERED, time.monotonic(), flush=True)


def start(folder: Path, *numbers: int) -> "subprocess.Popen[str]":
    """Start `drive` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ray_engine", "--folder", str(folder)]
    names = ("--n", "--seed", "--actors", "--batch-size")
    for name, number in zip(names, numbers, strict=True):
        command += [name, str(number)]
    threads = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    # By default, Ray's workers yield to all other processes.
    threads["RAY_worker_niceness"] = "0"
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads}
    )


def times(process: "subprocess.Popen[str]", most: int | None = None) -> list[float]:
    """When sessions were answered: the next ``most``, or all that are left."""
    assert process.stdout is not None
    found = []
    while (most is None or len(found) < most) and (line := process.stdout.readline()):
        if line.startswith(_ANSWERED):
            found.append(float(line.removeprefix(_ANSWERED)))
    return found


def rate(stamps: list[float], first: int = 1) -> float:
    """Answers per second, after the first ones."""
    return len(stamps[first:]) / (stamps[-1] - stamps[first - 1])


def stored(folder: Path) -> list[str]:
    """The ids in the output."""
    ids: list[str] = pq.read_table(folder / "out", columns=["session_id"])[0].to_pylist()
    return ids


def logged(folder: Path) -> list[list[str]]:
    """Process and session of each answer that an actor computed."""
    return [line.split() for line in (folder / "log").read_text().splitlines()]


def measure(
    folder: Path, n: int, local: int, seed: int, actors: int, batch_size: int
) -> dict[str, Any]:
    """Run both engines, kill twice and resume; report what is lost and what is repeated."""
    with start(folder, local, seed, 0, batch_size) as process:
        here = rate(times(process))
    with start(folder, n, seed, actors, batch_size) as driver:
        # The first batches include the actors' loading time.
        quiet = times(driver, n // 3 + actors * batch_size)
        there = rate(quiet, actors * batch_size)
        before = logged(folder)
        os.kill(int(before[-1][0]), signal.SIGKILL)
        times(driver, n // 3)
        driver.kill()
    kept = stored(folder)
    under_way = logged(folder)
    by_actor = len(under_way) - len({name for _, name in under_way})
    with start(folder, n, seed, actors, batch_size) as driver:
        times(driver)
        if driver.wait():
            raise RuntimeError("the resumed job failed")
    ids, computed = stored(folder), Counter(name for _, name in logged(folder))
    again = {name for _, name in logged(folder)[len(under_way) :]}
    return {
        "sessions": n,
        "actors": actors,
        "batch_size": batch_size,
        "generate_per_second_and_core": round(here, 2),
        "ray_per_second_and_core": round(there / actors, 2),
        "ratio": round(there / actors / here, 3),
        "parts_when_the_driver_was_killed": len(kept) // batch_size,
        "lost": n - len({*ids}),
        "twice_in_the_output": len(ids) - len({*ids}),
        "computed_again_after_the_actor": by_actor,
        "computed_again_after_the_driver": sum(computed.values()) - len(computed) - by_actor,
        "computed_again_though_stored": len(again & {*kept}),
        "seed": seed,
    }


def main(
    n: Annotated[int, typer.Option(min=1, help="Sessions.")] = 100_000,
    local: Annotated[int, typer.Option(min=2, help="Of them, those for generate.")] = 2_000,
    actors: Annotated[int, typer.Option(min=0, help="Of one core each.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(help="Of the sessions.")] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="Answer by a random student.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write it as JSON, too.")] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print rates and what kills cost, as JSON."""
    if folder is not None:
        drive(folder, n, seed, actors, batch_size)
        return
    with tempfile.TemporaryDirectory() as scratch:
        if tiny:
            student = tiny_student(seed)
            student.model.save_pretrained(Path(scratch) / _STUDENT)
            student.tokenizer.save_pretrained(Path(scratch) / _STUDENT)
        found = measure(Path(scratch), n, min(n, local), seed, actors, batch_size)
    text = json.dumps(found, indent=2)
    if output is not None:
        output.write_text(text + "\n")
    typer.echo(text)
    if found["lost"] or found["twice_in_the_output"] or found["computed_again_though_stored"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
