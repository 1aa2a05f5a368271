"""``routedk evaluate``: predictions and baselines against gold, as a table and as JSON."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import routedk
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OutputFile, refuse_foreign
from routedk.cli.sessions import DataPath, Split, data_record
from routedk.data import DataOptions, load_sessions, select_split, split_sessions
from routedk.eval.evaluate import EvaluateConfig
from routedk.files import write_json

_LEAK = (
    "Leak: untitled items were dropped (--untitled drop). Where untitled items are in no gold "
    "bundle, that gives part of the answer away."
)


@with_config_options
def evaluate(
    data: DataPath,
    output: OutputFile,
    config: EvaluateConfig,
    options: DataOptions,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Predictions to score, as generate writes them."),
    ] = None,
    split: Split = "test",
) -> None:
    """Score bundles against gold bundles, with 95% intervals over sessions.

    Sessions without gold bundles are left out; sessions that the predictions leave out count as
    unanswered. The baselines' thresholds are chosen on the validation split, whatever split is
    scored.

    Example: routedk evaluate --data demo --baselines --output result.json
    """
    from routedk.eval.predictions import read_predictions

    refuse_foreign(output, lambda document: document.keys() >= {"config", "versions"})
    everything = load_sessions(data, options)
    parts = split_sessions(everything, options)
    report = routedk.evaluate(
        select_split(everything, options, split),
        None if predictions is None else read_predictions(predictions, everything),
        config,
        training=parts["train"],
        validation=parts["val"],
        catalogue=everything,
    )
    about = {"predictions": predictions and str(predictions), "leaks": options.untitled == "drop"}
    report = replace(report, config={**report.config, **data_record(data, options, split), **about})
    write_json(output, report.to_dict())
    typer.echo(str(report))
    if about["leaks"]:
        typer.echo(_LEAK)
    typer.echo(f"Results: {output}")
