"""``routedk study``: the questions of a paper, on one's own sessions."""

from pathlib import Path
from typing import Annotated

import typer

import routedk
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OutputFolder, refuse_foreign
from routedk.cli.search import StoreFolder
from routedk.cli.sessions import DataPath, load_parts
from routedk.data import DataOptions
from routedk.optimizers.studies.grid import Paper
from routedk.optimizers.studies.verb import PaperConfig


@with_config_options
def study(
    paper: Annotated[Paper, typer.Argument(help="kd (arXiv 2504.17220) or routedk (2508.17250).")],
    data: DataPath,
    output: OutputFolder,
    config: PaperConfig,
    options: DataOptions,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The teacher's recorded answers to test sessions."),
    ] = None,
    store: StoreFolder = None,
) -> None:
    """Ask a paper's questions: run every system of its grid on the test split, and report them.

    kd: which formats of knowledge, how much of it, and used where. routedk: the student alone, by
    prompts, by each expert, mixed, uniform and routed, beside AICL, the baselines and the teacher.
    The same command resumes a study that was interrupted. report.html needs no other file.

    Example: routedk study routedk --data demo --output study
    """
    from routedk.eval.predictions import read_predictions
    from routedk.optimizers.studies.report import PAGE, REPORT

    refuse_foreign(output / REPORT, lambda document: document.keys() >= {"study", "title"})
    parts = load_parts(data, options)
    stated = None if reference is None else read_predictions(reference, parts["all"])
    found = routedk.study_paper(paper, parts, output, config, reference=stated, store=store)
    for one in found["systems"]:
        f1 = one["matched_f1"]
        typer.echo(f"{f1['value']:.3f} ({f1['low']:.3f} to {f1['high']:.3f})  {one['name']}")
    typer.echo(f"Report: {output / PAGE}")
