"""``routedk study``: a paper's comparisons, on your own sessions."""

from pathlib import Path
from typing import Annotated

import typer

import routedk
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OutputFolder, refuse_foreign
from routedk.cli.search import StoreFolder, quiet_optuna
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
        typer.Option(
            metavar="FILE", help="The teacher's answers to test sessions, as predictions."
        ),
    ] = None,
    store: StoreFolder = None,
) -> None:
    """Rerun a paper's comparisons on your own sessions, and report them.

    kd: which formats of knowledge, how much of it, and where to use it. routedk: the student alone,
    with prompts, with each expert, mixed, uniform and routed, beside AICL, the baselines and the
    teacher. Systems are scored on the test split. The same command resumes an interrupted study.
    report.html is self-contained.

    Example: routedk study routedk --data demo --output study
    """
    from routedk.eval.predictions import read_predictions
    from routedk.optimizers.search.report import PAGE, REPORT

    refuse_foreign(output / REPORT, lambda document: document.keys() >= {"study", "title"})
    if not (output / REPORT).exists():
        refuse_foreign(output / PAGE, lambda document: False)
    parts = load_parts(data, options)
    stated = None if reference is None else read_predictions(reference, parts["all"])
    quiet_optuna()
    found = routedk.study_paper(paper, parts, output, config, reference=stated, store=store)
    for one in found["systems"]:
        f1 = one["matched_f1"]
        typer.echo(f"{f1['value']:.3f} ({f1['low']:.3f} to {f1['high']:.3f})  {one['name']}")
    for name, reason in found["failures"].items():
        typer.echo(f"failed  {name}: {reason}")
    typer.echo(f"Report: {output / PAGE}")
