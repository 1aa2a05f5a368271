"""Does tuning prompt and weights in turn help? BetterTogether: prompt, weights, prompt.

    python -m benchmarks.better_together --output tuned --train 48 --evaluations 4

Matched F1 of the program before, after tuning the prompt (`KnowledgeInjection`), the weights
(`RoutedFinetune`) and the prompt again, on the validation sessions that choose among them and on
unseen test sessions. A step that fails ends the benchmark.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import dspy
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from routedk import BundleGenerator, CompileConfig, Session, TrainConfig, distill, student_lm
from routedk.cli.config_options import with_config_options
from routedk.cli.sessions import data_record
from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.errors import RouteDKError, SettingError
from routedk.eval.bootstrap import bootstrap
from routedk.eval.paired import paired_p
from routedk.eval.protocols import Score
from routedk.files import write_json
from routedk.optimizers import (
    KnowledgeInjection,
    RoutedFinetune,
    as_examples,
    matched_f1_metric,
)
from routedk.programs import generate_all

STRATEGY = "p -> w -> p"
STEPS = ("", "p", "p -> w", STRATEGY)


class StepFailedError(RouteDKError, RuntimeError):
    """A step of BetterTogether failed, which it only logs."""


@with_config_options
def main(
    options: DataOptions,
    output: Annotated[Path, typer.Option(help="Folder for store, program and results.")],
    data: Annotated[str, typer.Option(help="Sessions, as routedk train takes them.")] = "demo",
    student: Annotated[str | None, typer.Option(help="Folder or name of a causal LM.")] = None,
    dtype: Annotated[str | None, typer.Option(help="The student's.")] = None,
    train: Annotated[int, typer.Option(min=2, help="Training sessions.")] = 48,
    validation: Annotated[int, typer.Option(min=1, help="Validation sessions.")] = 24,
    test: Annotated[int, typer.Option(min=1, help="Test sessions.")] = 32,
    evaluations: Annotated[int, typer.Option(min=1, help="Of each prompt step.")] = 4,
    threshold: Annotated[float, typer.Option(help="Score from which answers are learned.")] = 0.8,
    epochs: Annotated[float, typer.Option(help="Passes of the base expert.")] = 6.0,
) -> None:
    """Tune prompt, weights and prompt again, and score every step."""
    seed = options.seed
    rng = random.Random(seed)
    wanted = {"train": train, "val": validation, "test": test}
    sets = {}
    for name, sessions in split_sessions(load_sessions(data, options), options).items():
        gold = [session for session in sessions if session.bundles]
        if not gold:
            raise SettingError(f"{data}: no session of the split {name!r} has gold bundles")
        sets[name] = rng.sample(gold, min(wanted[name], len(gold)))
    knowledge = distill(sets["train"])
    w = RoutedFinetune(
        knowledge=knowledge,
        config=TrainConfig(answer_form="item-intents", epochs=epochs, seed=seed),
        threshold=threshold,
        store=output / "store",
    )
    p = KnowledgeInjection(knowledge, CompileConfig(evaluations=evaluations, seed=seed))
    program = BundleGenerator()
    program.set_lm(student_lm(student=student, dtype=dtype))
    best = dspy.BetterTogether(metric=matched_f1_metric, p=p, w=w).compile(
        program,
        trainset=as_examples(sets["train"]),
        valset=as_examples(sets["val"]),
        strategy=STRATEGY,
        num_threads=8,
        seed=seed,
    )
    if best.flag_compilation_error_occurred:
        raise StepFailedError(f"a step of {STRATEGY!r} failed, see the log above")
    tried = {one["strategy"]: one["program"] for one in best.candidate_programs}
    scores = {
        part: {step: scored(tried[step], sets[part]) for step in STEPS} for part in ("val", "test")
    }
    (report,) = w.reports
    record = {
        "config": {
            **data_record(data, options, "all"),
            "student": student,
            "dtype": dtype,
            "sessions": {name: len(mine) for name, mine in sets.items()},
            "evaluations": evaluations,
            "threshold": threshold,
            "epochs": epochs,
        },
        "learnt": {
            "gold": report.gold,
            "asked": report.asked,
            "accepted": report.accepted,
            "rows": report.rows,
            "experts": str(report.folder),
        },
        "chosen_on_validation": next(name for name, one in tried.items() if one is best),
        "steps": [
            {"step": step, **{part: summary(scores[part], step, seed) for part in scores}}
            for step in STEPS
        ],
    }
    write_json(output / "results.json", record)
    best.save(output / "program.json")
    show(record)


def scored(program: Any, sessions: Sequence[Session]) -> list[float]:
    """Matched F1 of each session."""
    answers = generate_all(program, sessions, num_threads=8)
    return [
        matched_f1_metric(example, answer)
        for example, answer in zip(as_examples(sessions), answers, strict=True)
    ]


def summary(scores: dict[str, list[float]], step: str, seed: int) -> dict[str, float]:
    """Mean and 95% interval of a step, and how it compares with the program before any step."""
    (interval,) = bootstrap([[Score(score)] for score in scores[step]], seed=seed)
    return {
        **asdict(interval),
        "difference": fmean(scores[step]) - fmean(scores[STEPS[0]]),
        "p": paired_p(scores[step], scores[STEPS[0]], seed=seed),
    }


def show(record: dict[str, Any]) -> None:
    """Print the steps as a table."""
    table = Table("program", *(f"{part} F1 (95%) | p" for part in ("validation", "test")))
    for step in record["steps"]:
        cells = [
            f"{one['value']:.3f} ({one['low']:.3f}-{one['high']:.3f}) | {one['p']:.3f}"
            for one in (step["val"], step["test"])
        ]
        table.add_row(step["step"] or "before", *cells)
    console = Console(width=120)
    console.print(table)
    learnt, sessions = record["learnt"], record["config"]["sessions"]
    console.print(
        f"{sessions['val']} validation and {sessions['test']} test sessions; p: one-sided, against "
        f"the program before. Learned: gold of {learnt['gold']} sessions, {learnt['accepted']} of "
        f"{learnt['asked']} answers. Chosen on validation: "
        f"{record['chosen_on_validation'] or 'before'}.",
        highlight=False,
    )


if __name__ == "__main__":
    run_command(main)
