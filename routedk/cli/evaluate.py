"""``routedk evaluate``: predictions and baselines against gold, as a table and as JSON."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from routedk.cli.options import SessionSource, takes_sessions
from routedk.data import load_sessions, select_split, split_sessions
from routedk.files import write_json

LEAK_OF_DROP = (
    "Leak: untitled items were dropped (--untitled drop). Where untitled items are in no gold "
    "bundle, that gives part of the answer away."
)


@takes_sessions(split="test")
def evaluate_command(
    source: SessionSource,
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="Where the results go, as JSON.")
    ],
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Predictions to score, as generate writes them."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Score the baselines, too; needs titles.")
    ] = False,
) -> None:
    """Score bundles against gold bundles, with 95% intervals over sessions.

    Sessions without gold bundles are passed over; sessions that the predictions leave out count
    as unanswered. The baselines' thresholds are chosen on the validation split, whatever split is
    scored.
    """
    from rich.console import Console
    from rich.text import Text

    from routedk.eval import EvaluateConfig, evaluate, read_predictions
    from routedk.eval.table import report_notes, report_table

    everything = load_sessions(source.path, source.options)
    sessions = select_split(everything, source.options, source.split)
    parts = split_sessions(everything, source.options)
    answers = None if predictions is None else read_predictions(predictions, everything)
    report = evaluate(
        sessions,
        answers,
        EvaluateConfig(baselines=baselines, seed=source.options.seed),
        training=parts["train"],
        validation=parts["val"],
        catalogue=everything,
    )
    leaks = source.options.untitled == "drop"
    about: dict[str, object] = {"leaks": leaks}
    if predictions is not None:
        about["predictions"] = str(predictions)
    report = replace(report, config={**report.config, **source.config(), **about})
    write_json(output, report.to_dict())
    console = Console()
    console.print(report_table(report), "")
    notes = [*report_notes(report), *([LEAK_OF_DROP] if leaks else []), f"Results: {output}"]
    for note in notes:
        console.print(Text(note), soft_wrap=True)
