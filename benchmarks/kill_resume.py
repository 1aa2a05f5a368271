"""``routedk distill`` killed at random moments and restarted: what is lost or paid for twice.

python -m benchmarks.kill_resume --kills 50 --output kills.json
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from benchmarks.command import run_command
from benchmarks.counting_server import CountingServer

_KNOWLEDGE = "knowledge.jsonl"
# One kill in five falls anywhere between a run's first and last second, imports included.
_ANYWHERE = 0.2
# Most calls before a kill, over all calls per kill: on average, a little less than that share.
_SPREAD = 1.9
_PATIENCE = 600.0
# What takes seconds to import; the encoder is needed to merge rules.
LIBRARIES = (
    "litellm.main",
    "mlxtend.frequent_patterns",
    "openai",
    "routedk.cli.app",
    "routedk.programs.teachers.lm_teacher",
)
ENCODER = "sentence_transformers"


class Run(Protocol):
    """A process that distills."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def kill(self) -> None:
        """Send it SIGKILL."""


class Start(Protocol):
    """How processes are started."""

    def __call__(self, arguments: list[str], log: Path) -> Run:
        """Start ``routedk`` with these arguments; its output goes to the log."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill and what it left.

    Args:
        after_calls: Planned number of calls in its run before it; None for any moment of the run.
        after_seconds: Planned seconds after that, or after the start.
        calls: Calls that reached the server in this run.
        under_way: Those of them without a line in the journal when the process was dead.
        journaled: Lines of the journal at that time.
        half_line: Whether the journal ended in the middle of a line.
    """

    after_calls: int | None
    after_seconds: float
    calls: int
    under_way: int
    journaled: int
    half_line: bool


def start_command(arguments: list[str], log: Path) -> Run:
    """Start the command itself, in a fresh interpreter."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", "from routedk.cli import main; main()", *arguments],
            stdout=output,
            stderr=output,
        )


class Forks:
    """Starts the same command in forks of an interpreter with preloaded libraries.

    Args:
        preload: Modules that are imported once, before forking.
    """

    def __init__(self, preload: tuple[str, ...] = (*LIBRARIES, ENCODER)) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))

    def __call__(self, arguments: list[str], log: Path) -> Run:
        """See `Start`."""
        # The fork server may be older than the environment variables.
        given = (arguments, log, dict(os.environ))
        process = self._context.Process(target=_distill, args=given, daemon=True)
        process.start()
        return _Fork(process)


class _Fork:
    def __init__(self, process: Any) -> None:
        self._process = process

    def poll(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _distill(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from routedk.cli import main

    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    main(arguments)


def kill_and_resume(
    folder: Path,
    *,
    kills: int,
    seed: int,
    seconds: float,
    start: Start,
    options: tuple[str, ...],
) -> dict[str, Any]:
    """Distill once undisturbed and once with kills; compare, and count.

    Args:
        folder: Folder for both runs.
        kills: Number of kills, each followed by the same command again.
        seed: Seed of their moments.
        seconds: Mean delay of the server's answers.
        start: How processes are started.
        options: Additional options of ``routedk distill``.
    """
    chance = random.Random(seed)
    os.environ.setdefault("OPENAI_API_KEY", "none")
    # LiteLLM reads it on import, which may come before the command.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with CountingServer(seconds).running() as server:
        common = ["distill", "--data", "demo", "--teacher", "openai/fake", *options]
        common += ["--api-base", server.address, "--output"]

        def begin(name: str) -> Run:
            """Start the command with its own store and output."""
            os.environ["ROUTEDK_CACHE"] = str(folder / f"{name}-cache")
            return start([*common, str(folder / name)], folder / f"{name}.log")

        _to_the_end(start(["info"], folder / "info.log"))
        began = time.monotonic()
        _to_the_end(begin("quiet"))
        duration = time.monotonic() - began
        quiet = server.counts
        server.forget()
        most = max(1, round(_SPREAD * len(quiet.asked) / kills))
        journals = folder / "killed-cache" / "store" / "journals"
        done: list[Kill] = []
        known: set[str] = set()
        again = tries = 0
        while len(done) < kills and tries < 3 * kills:
            tries += 1
            complete = len(known) == len(quiet.asked)
            anywhere = complete or chance.random() < _ANYWHERE
            # Limit calls before a kill anywhere, too: otherwise few are left for the others.
            after_calls = most if anywhere else chance.randint(1, most)
            after_seconds = chance.uniform(0, duration if anywhere else 2 * seconds)
            before, began = len(server.counts.asked), time.monotonic()
            run = begin("killed")
            ended = _wait(run, server, before + after_calls, after_seconds, anywhere)
            run.kill()
            _to_the_end(run, killed=not ended)
            asked = server.counts.asked[before:]
            again += sum(key in known for key in asked)
            known, half_line = _journaled(journals)
            if ended:
                duration = time.monotonic() - began
                # A finished result is returned at once; delete it to go on with the journal.
                shutil.rmtree(folder / "killed-cache" / "store" / "artifacts", ignore_errors=True)
                continue
            done.append(
                Kill(
                    after_calls=None if anywhere else after_calls,
                    after_seconds=round(after_seconds, 3),
                    calls=len(asked),
                    under_way=len(set(asked) - known),
                    journaled=len(known),
                    half_line=half_line,
                )
            )
        before = len(server.counts.asked)
        _to_the_end(begin("killed"))
        made = server.counts
        again += sum(key in known for key in made.asked[before:])
    undisturbed, resumed = ((folder / run / _KNOWLEDGE).read_bytes() for run in ("quiet", "killed"))
    return {
        "kills": len(done),
        "kills_with_calls_under_way": sum(kill.under_way > 0 for kill in done),
        "kills_that_left_half_a_line": sum(kill.half_line for kill in done),
        "runs_that_ended_before_their_kill": tries - len(done),
        "questions": len(set(quiet.asked)),
        "calls_made": len(made.asked),
        "calls_under_way_when_killed": sum(kill.under_way for kill in done),
        "calls_made_again": len(made.asked) - len(set(made.asked)),
        "calls_made_again_though_journaled": again,
        "answers_computed_twice": sum(times - 1 for times in made.computed.values()),
        "answers_in_the_journal": len(_journaled(journals)[0]),
        "same_knowledge": undisturbed == resumed,
        "knowledge_sha256": hashlib.sha256(resumed).hexdigest(),
        "seed": seed,
        "log": [asdict(kill) for kill in done],
    }


def _wait(run: Run, server: CountingServer, asked: int, seconds: float, anywhere: bool) -> bool:
    """Wait for the moment of a kill; return whether the run ended before it.

    The moment is ``seconds`` after ``asked`` calls in all have come; with ``anywhere``, it is
    whichever comes first, counting seconds from now.
    """
    deadline = time.monotonic() + _PATIENCE
    moment = time.monotonic() + seconds if anywhere else deadline
    while not server.wait_for(asked, min(0.02, max(0.0, moment - time.monotonic()))):
        if run.poll() is not None:
            return True
        if time.monotonic() >= deadline:
            raise RuntimeError("the run neither asks nor ends")
        if time.monotonic() >= moment:
            return False
    if not anywhere:
        time.sleep(seconds)
    return run.poll() is not None


def _to_the_end(run: Run, *, killed: bool = False) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (code := run.poll()) is None:
        if time.monotonic() > deadline:
            run.kill()
            raise RuntimeError("the run does not end")
        time.sleep(0.02)
    # A run may end just before it is killed.
    if code != 0 and not (killed and code == -signal.SIGKILL):
        raise RuntimeError(f"routedk distill ended with {code}: see the logs")


def _journaled(folder: Path) -> tuple[set[str], bool]:
    """The keys in a journal's complete lines, and whether half a line follows."""
    paths = list(folder.glob("*.jsonl"))
    *lines, rest = paths[0].read_bytes().split(b"\n") if paths else [b""]
    return {json.loads(line)["key"] for line in lines}, bool(rest)


def main(
    kills: Annotated[int, typer.Option(min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 0,
    ratio: Annotated[float, typer.Option(help="Share of the demo's training sessions.")] = 0.35,
    seconds: Annotated[float, typer.Option(help="Mean wait of the server.")] = 0.3,
    threads: Annotated[int, typer.Option(min=1)] = 4,
    preloaded: Annotated[
        bool, typer.Option(help="Fork processes that have the libraries loaded.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="The log, as JSON.")] = None,
) -> None:
    """Print what kills cost, as JSON; exit code 1 if anything was lost or paid for twice."""
    with tempfile.TemporaryDirectory() as folder:
        found = kill_and_resume(
            Path(folder),
            kills=kills,
            seed=seed,
            seconds=seconds,
            start=Forks() if preloaded else start_command,
            options=("--ratio", str(ratio), "--threads", str(threads)),
        )
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n")
    typer.echo(json.dumps({name: found[name] for name in found if name != "log"}, indent=2))
    lost = not found["same_knowledge"]
    if lost or found["calls_made_again_though_journaled"] or found["answers_computed_twice"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
