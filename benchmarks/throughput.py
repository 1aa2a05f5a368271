"""Sessions per second: one caller against sixteen, on one engine, alternating.

python -m benchmarks.throughput --experts artifacts/demo/experts --sessions 16
"""

import json
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import dspy
import typer

from benchmarks.command import run_command
from routedk.adapters.serving.engine import student_lm
from routedk.data import load_sessions, split_sessions
from routedk.data.options import DataOptions
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator


def main(
    experts: Annotated[Path | None, typer.Option(help="None: the untrained student.")] = None,
    sessions: Annotated[int, typer.Option(min=1)] = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print sessions per second with 1 and with 16 threads, and their ratio, as JSON."""
    options = DataOptions()
    chosen = split_sessions(load_sessions("demo", options), options)["test"][:sessions]
    lm = student_lm(experts)
    program = BundleGenerator()
    seconds: dict[int, list[float]] = {1: [], 16: []}
    answers = {}
    with dspy.context(lm=lm.copy(cache=False)):
        generate_all(program, chosen[:2])
        for _ in range(rounds):
            for threads in seconds:
                started = perf_counter()
                found = generate_all(program, chosen, num_threads=threads)
                seconds[threads].append(perf_counter() - started)
                answers[threads] = [answer.raw for answer in found]
    ratios = [one / many for one, many in zip(seconds[1], seconds[16], strict=True)]
    typer.echo(
        json.dumps(
            {
                "sessions": len(chosen),
                "sessions_per_second": {
                    f"{threads} threads": round(len(chosen) / median(mine), 3)
                    for threads, mine in seconds.items()
                },
                "ratio": {"min": min(ratios), "median": median(ratios), "max": max(ratios)},
                "same_answers": answers[1] == answers[16],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    run_command(main)
