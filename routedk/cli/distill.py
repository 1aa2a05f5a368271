"""``routedk distill``: knowledge from training sessions, in a folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from routedk.artifacts import check_output, copy_artifact
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OptionalFolder, print_table, progress
from routedk.cli.sessions import DataPath, Split, load_parts
from routedk.data import DataOptions
from routedk.errors import SettingError, one_line
from routedk.files import read_json
from routedk.programs.teachers.config import DistillConfig

_SHOWN = 3


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
    write_requests: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the requests of an OpenAI batch; --answers reads its result file.",
        ),
    ] = None,
) -> None:
    """Distill patterns, rules, thoughts and a teacher's answers from training sessions.

    The annotation teacher works from gold bundles, needs no network and no language model, and
    gives the same knowledge for the same sessions. An LM teacher needs no gold: it states the
    bundles itself. Its answers are saved as they arrive: the same command resumes an
    interrupted run, and no answer is paid for twice. --answers reads answers that were made
    elsewhere.

    Example: routedk distill --data demo --output knowledge; of sessions without gold:
    routedk distill --data carts.jsonl --teacher openai/gpt-4o-mini --output knowledge, or
    routedk distill --data carts.jsonl --answers train.jsonl --answers rules.jsonl --output
    knowledge
    """
    from routedk.adapters.engine.engine import student_lm
    from routedk.programs.distill import REPORT, distill_artifact
    from routedk.programs.distill_plan import plan_distill
    from routedk.programs.distill_plan import write_requests as write

    parts = load_parts(data, options, split)
    sessions = parts[split]
    if dry_run:
        _print_plan(plan_distill(sessions, config))
        return
    if write_requests is not None:
        count = write(sessions, write_requests, config)
        typer.echo(f"{count} requests: {write_requests}")
        return
    if output is None:
        raise SettingError("--output DIR: name the folder that the knowledge goes to")
    check_output(output)
    chosen = {session.id for session in sessions}
    held_out = [session for session in parts["all"] if session.id not in chosen]
    with progress() as on_step:
        artifact = distill_artifact(
            sessions, config, student=student_lm, on_step=on_step, held_out=held_out
        )
    copy_artifact(artifact.folder, output)
    told: Any = read_json(artifact.folder / REPORT)
    print_table("Knowledge", ("kind", "count"), told["counts"].items())
    _print_unused(told, output / REPORT)
    typer.echo(f"Knowledge: {output / 'knowledge.jsonl'}")


def _print_unused(told: dict[str, Any], report: Path) -> None:
    """Print which parts of a teacher's answers were not used: counts, examples, and the report."""
    for reason, count in told.get("left_out", {}).items():
        typer.echo(f"Left out: {count} {reason}")
    bad = [f"{one['file']}:{one['line']}: {one['problem']}" for one in told.get("bad_lines", ())]
    parts = [f"{one['session_id']}: {one['dropped']}" for one in told.get("dropped", ())]
    for what, lines in (("bad lines", bad), ("parts of answers", parts)):
        if lines:
            typer.echo(f"{len(lines)} {what} were not used, all of them in {report}:", err=True)
            typer.echo("\n".join(f"  {one_line(line)}" for line in lines[:_SHOWN]), err=True)


def _print_plan(steps: dict[str, Any]) -> None:
    if not steps:
        typer.echo("No language model is asked: there are no calls.")
        return
    rows = []
    for name, tally in steps.items():
        cost = "unknown" if tally.cost is None else f"{tally.cost:.4f}"
        rows.append((name, tally.calls, tally.input_tokens, tally.output_tokens, cost))
    print_table("About", ("step", "calls", "tokens in", "out", "US dollars"), rows)
