"""``routedk search report`` and ``routedk search export``: what a study found."""

from pathlib import Path
from typing import Annotated

import typer

from routedk.cli.lm import lm_errors
from routedk.cli.options import SessionSource, takes_sessions
from routedk.cli.output import log_progress

StudyName = Annotated[str, typer.Option(help="Name of the study.")]
Storage = Annotated[str | None, typer.Option(help="URL of the storage.")]


@takes_sessions(split="test", default="")
def report(
    source: SessionSource,
    output: Annotated[Path, typer.Option(help="Where the report goes.")],
    study: StudyName = "search",
    storage: Storage = None,
) -> None:
    """Say what a study found: report.html, which needs no other file, and report.json."""
    from routedk.optimizers.search import ReportConfig, report_search

    log_progress()
    parts = source.load_parts() if source.path else None
    with lm_errors():
        report_search(output, ReportConfig(study=study, storage=storage), parts=parts)
    typer.echo(f"Report: {output / 'report.html'}")


@takes_sessions(split="train", default="")
def export_trial(
    source: SessionSource,
    trial: Annotated[int, typer.Argument(help="Number of a complete trial.")],
    output: Annotated[Path, typer.Option(help="Where the program goes: a new folder.")],
    study: StudyName = "search",
    storage: Storage = None,
) -> None:
    """Write a trial as a ready program: program.json, its experts, and a README."""
    from routedk.optimizers.search import StudyConfig
    from routedk.optimizers.search import export_trial as export

    parts = source.load_parts()
    config = StudyConfig(study=study, storage=storage)
    with lm_errors():
        export(parts["train"], parts["val"], trial, output, config)
    typer.echo(f"Trial {trial} of {study}: {output / 'README.md'} says how to use it.")
