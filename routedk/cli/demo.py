"""``routedk demo``: the five verbs as commands, one after the other, on the embedded sessions."""

import shlex
import time
from pathlib import Path

import typer

import routedk
from routedk.cli.output import OutputFolder

_EXAMPLES = 3

# Out of the box: the packaged bundler, which never saw these sessions.
FIRST = "generate --data demo --split test --output {output}/general.jsonl"
# Sizes for two CPU cores.
COMMANDS = (
    "distill --data demo --output {output}/knowledge",
    "train --data demo --knowledge {output}/knowledge/knowledge.jsonl --epochs 2 "
    "--knowledge-share 0.1 --knowledge-epochs 1 --router-share 0.05 --output {output}/experts",
    "compile --data demo --knowledge {output}/knowledge/knowledge.jsonl "
    "--experts {output}/experts --evaluations 2 --max-validation 12 "
    "--output {output}/program.json",
    "generate --data demo --split test --experts {output}/experts "
    "--program {output}/program.json --output {output}/bundles.jsonl",
    "evaluate --data demo --predictions {output}/general.jsonl --output {output}/general.json",
    "evaluate --data demo --predictions {output}/bundles.jsonl --baselines "
    "--output {output}/result.json",
)


def demo(context: typer.Context, output: OutputFolder = Path("artifacts/demo")) -> None:
    """Distill, train, compile, generate and evaluate on the embedded set, and show some bundles.

    The commands are printed as they run. First the packaged bundler groups the sessions without
    any training; then a student is trained on them, and both are scored beside the baselines. What
    an earlier run made is reused from the artifact store.

    Example: routedk demo --output artifacts/demo
    """
    started = time.monotonic()
    _run(context, FIRST, output)
    _show_bundles(output / "general.jsonl")
    for command in COMMANDS:
        _run(context, command, output)
    _show_bundles(output / "bundles.jsonl")
    typer.echo(f"\nAll of it is in {output}, made in {time.monotonic() - started:.0f} s")


def _run(context: typer.Context, command: str, output: Path) -> None:
    words = [word.format(output=output) for word in command.split()]
    typer.secho(f"\n$ routedk {shlex.join(words)}", bold=True)
    context.find_root().command.main(words, "routedk", standalone_mode=False)


def _show_bundles(predictions: Path) -> None:
    """Generated and gold bundles of a few sessions."""
    from routedk.eval.predictions import read_predictions

    sessions = {session.id: session for session in routedk.load_sessions("demo")}
    answers = read_predictions(predictions, list(sessions.values()))
    several = [answer for answer in answers if len(sessions[answer.session_id].gold) > 1]
    for answer in several[:_EXAMPLES]:
        session = sessions[answer.session_id]
        typer.secho(f"\n{session.id}", bold=True)
        for name, bundles in (("generated", answer.bundles), ("gold", session.bundles or ())):
            for bundle in bundles:
                titles = "; ".join(session.item(item).title for item in bundle.item_ids)
                kind = f" ({bundle.kind})" if bundle.kind else ""
                typer.echo(f"  {name}: {bundle.intent}{kind}: {titles}")
