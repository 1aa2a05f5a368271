"""``routedk distill``: knowledge from training sessions, in a folder."""

from typing import Annotated, Any

import typer

from routedk.artifacts import check_output, copy_artifact
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OptionalFolder, print_table, progress
from routedk.cli.sessions import DataPath, Split, load_split
from routedk.data import DataOptions
from routedk.errors import SettingError
from routedk.files import read_json
from routedk.programs.teachers.config import DistillConfig


@with_config_options
def distill(
    data: DataPath,
    config: DistillConfig,
    options: DataOptions,
    split: Split = "train",
    output: OptionalFolder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print expected calls, tokens and cost.")
    ] = False,
) -> None:
    """Distill patterns, rules and thoughts from the gold bundles of training sessions.

    The annotation teacher needs no network and no language model, and gives the same knowledge
    for the same sessions. Answers of an LM teacher are kept as they arrive: a run that was
    interrupted resumes when the same command is given again, and no answer is paid for twice.

    Example: routedk distill --data demo --output knowledge
    """
    from routedk.adapters.engine.engine import student_lm
    from routedk.programs.distill import REPORT, distill_artifact, plan_distill

    sessions = load_split(data, options, split)
    if dry_run:
        _print_plan(plan_distill(sessions, config))
        return
    if output is None:
        raise SettingError("--output DIR: name the folder that the knowledge goes to")
    check_output(output)
    with progress() as on_step:
        artifact = distill_artifact(sessions, config, student=student_lm, on_step=on_step)
    copy_artifact(artifact.folder, output)
    told: Any = read_json(artifact.folder / REPORT)
    print_table("Knowledge", ("kind", "count"), told["counts"].items())
    typer.echo(f"Knowledge: {output / 'knowledge.jsonl'}")


def _print_plan(steps: dict[str, Any]) -> None:
    if not steps:
        typer.echo("The annotation teacher makes no calls.")
        return
    rows = []
    for name, tally in steps.items():
        cost = "unknown" if tally.cost is None else f"{tally.cost:.4f}"
        rows.append((name, tally.calls, tally.input_tokens, tally.output_tokens, cost))
    print_table("About", ("step", "calls", "tokens in", "out", "US dollars"), rows)
