"""One table of everything: baselines, student zero-shot and compiled, AICL, experts.

    python -m benchmarks.systems --data demo --experts artifacts/demo/experts \
        --program artifacts/demo/program.json --output systems.json
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import dspy
import typer

from benchmarks.command import run_command
from routedk.adapters.engine.engine import student_lm
from routedk.adapters.experts.routed import read_routing
from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.eval import EvaluateConfig, evaluate
from routedk.files import write_json
from routedk.programs.aicl.program import AICL
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator, load_program
from routedk.types import Answer, Session


def _systems(
    experts: Path, program: Path | None, dtype: str | None, neighbours: Sequence[Session]
) -> Iterator[tuple[str, Any, Any]]:
    """Name, language model and program of each system; AICL where it has neighbours."""
    plain = BundleGenerator()
    compiled = load_program(program) if program is not None else plain
    untrained = student_lm(student=read_routing(experts)["student"]["name"], dtype=dtype)
    yield "student zero-shot", untrained, plain
    if program is not None:
        yield "student compiled", untrained, compiled
    if neighbours:
        yield "AICL", untrained, AICL(neighbours)
    for name in read_routing(experts)["experts"]:
        lm = student_lm(experts, fusion=f"single:{name}", dtype=dtype)
        yield f"expert {name}", lm, compiled
    yield "uniform", student_lm(experts, fusion="uniform", dtype=dtype), compiled
    yield "routed", student_lm(experts, dtype=dtype), compiled


def main(
    data: Annotated[str, typer.Option(help="A data set, as in routedk evaluate.")],
    experts: Annotated[Path, typer.Option(help="What routedk train wrote.")],
    output: Annotated[Path, typer.Option(help="Where the results go, as JSON.")],
    program: Annotated[Path | None, typer.Option(help="What routedk compile wrote.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="The student's, as in routedk generate.")
    ] = None,
    extra_titles: Annotated[Path | None, typer.Option(help="As in routedk evaluate.")] = None,
    split_file: Annotated[Path | None, typer.Option(help="As in routedk evaluate.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split and the bootstrap.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Score the first sessions only.")] = None,
    aicl: Annotated[bool, typer.Option(help="Score AICL with the base model, too.")] = True,
) -> None:
    """Score every system on the same sessions."""
    options = DataOptions(extra_titles=extra_titles, split_file=split_file, seed=seed)
    everything = load_sessions(data, options)
    parts = split_sessions(everything, options)
    sessions = [session for session in parts["test"] if session.gold][:limit]
    asked = {session.id for session in sessions}
    training = [s for s in parts["train"] if s.gold and s.id not in asked]
    config = EvaluateConfig(seed=seed, intents=False)
    report = evaluate(
        sessions,
        config=replace(config, baselines=True),
        training=training,
        validation=parts["val"],
        catalogue=everything,
    )
    scored = list(report.baselines)
    for name, lm, runner in _systems(experts, program, dtype, training if aicl else []):
        started = perf_counter()
        with dspy.context(lm=lm):
            answers = generate_all(runner, sessions)
        seconds = (perf_counter() - started) / len(sessions)
        made = [
            Answer(session.id, tuple(answer.bundles))
            for session, answer in zip(sessions, answers, strict=True)
        ]
        system = evaluate(sessions, made, config).system
        assert system is not None
        about = {"seconds_per_session": seconds, "dtype": dtype}
        scored.append(replace(system, name=name, config=about))
        typer.echo(f"{name}: {seconds:.2f} s per session", err=True)
    report = replace(
        report,
        config={**report.config, "data": data, "split": "test"},
        system=scored[-1],
        baselines=tuple(scored[:-1]),
    )
    write_json(output, report.to_dict())
    typer.echo(str(report))


if __name__ == "__main__":
    run_command(main)
