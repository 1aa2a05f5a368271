"""``routedk evaluate``: predictions and baselines against gold and a teacher, tables and JSON."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import routedk
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OutputFile, refuse_foreign
from routedk.cli.sessions import DataPath, Split, data_record
from routedk.data import DataOptions, load_sessions, select_split, split_sessions
from routedk.errors import DataError
from routedk.eval.evaluate import EvaluateConfig
from routedk.files import write_json
from routedk.types import Answer, Session

_LEAK = (
    "Leak: untitled items were {}. Where untitled items are in no gold bundle, that gives part of "
    "the answer away."
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
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A teacher's recorded answers, laid out as predictions are."
        ),
    ] = None,
    empties: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="More sessions; those annotated as empty are scored."),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="Print what leaving more sessions empty costs.")
    ] = False,
    split: Split = "test",
) -> None:
    """Score bundles against gold bundles, with 95% intervals over sessions.

    Sessions annotated as empty are scored in separate figures; sessions missing from the
    predictions count as unanswered. The baselines' thresholds are chosen on the validation split,
    whichever split is scored. With --reference, agreement with the teacher is reported (the only
    figure for sessions without gold), and what student and teacher reach together.

    Example: routedk evaluate --data demo --baselines --output result.json
    """
    from routedk.eval.predictions import read_predictions
    from routedk.eval.table import curves_table, rendered

    refuse_foreign(output, lambda document: document.keys() >= {"config", "versions"})
    everything = load_sessions(data, options)
    parts = split_sessions(everything, options)
    more = [] if empties is None else _more_sessions(empties, everything, options)
    scored = select_split(everything, options, split)
    scored += [session for session in more if session.bundles == ()]

    def answers(path: Path | None) -> list[Answer] | None:
        return None if path is None else read_predictions(path, [*everything, *more])

    report = routedk.evaluate(
        scored,
        answers(predictions),
        config,
        reference=answers(reference),
        training=parts["train"],
        validation=parts["val"],
        catalogue=everything,
    )
    bare, dropped = report.config["items_without_title"]["gold"], options.untitled == "drop"
    files = {"predictions": predictions, "reference": reference, "empties": empties}
    about = {name: file and str(file) for name, file in files.items()}
    about |= data_record(data, options, split) | {"leaks": dropped or bare > 0}
    report = replace(report, config={**report.config, **about})
    write_json(output, report.to_dict())
    typer.echo(str(report))
    if about["leaks"]:
        typer.echo(_LEAK.format("dropped (--untitled drop)" if dropped else f"shown ({bare})"))
    if curves:
        typer.echo("\n" + rendered(curves_table(report)))
    typer.echo(f"Results: {output}")


def _more_sessions(path: Path, others: Sequence[Session], options: DataOptions) -> list[Session]:
    """The sessions of a file, some annotated as empty, and none of them among the others."""
    ids = {session.id for session in others}
    found = load_sessions(path, replace(options, split_file=None))
    if not any(session.bundles == () for session in found):
        raise DataError('no session is annotated as empty, "bundles": []', path=path)
    if twice := next((session.id for session in found if session.id in ids), None):
        raise DataError(f"session {twice!r} is one of --data, too", path=path)
    return found
