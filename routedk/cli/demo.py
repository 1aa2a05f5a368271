"""``routedk demo``: the main job once, on the embedded set."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routedk.cli.output import log_progress
from routedk.types import Answer, Session

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 3


def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")] = Path(
        "artifacts/demo"
    ),
) -> None:
    """Distil, train, compile and evaluate on the embedded set, and show some bundles.

    What an earlier run made in the same folder is used again.
    """
    from rich.console import Console

    from routedk.cli.demo_steps import Demo
    from routedk.eval.table import report_notes, report_table

    log_progress()
    started = time.monotonic()
    console = Console()
    run = Demo(output, say=lambda line: console.print(line, style="bold", highlight=False))
    run.run()
    report = run.report()
    console.print("", report_table(report), "")
    for note in report_notes(report):
        console.print(note, highlight=False)
    for session, answer in run.examples(_SHOWN):
        _show(console, session, answer)
    console.print(
        f"\nknowledge {run.knowledge} · experts {run.experts} · program {run.program}\n"
        f"results {run.result} · loss curve {run.experts / 'loss.png'}\n"
        f"{time.monotonic() - started:.0f} s",
        highlight=False,
        soft_wrap=True,
    )


def _show(console: "Console", session: Session, answer: Answer) -> None:
    from rich.text import Text

    console.print(Text(f"\n{session.id}", style="bold"))
    for number, item in enumerate(session.items, start=1):
        console.print(Text(f"  {number} {item.title}"))
    for name, bundles in (("generated", answer.bundles), ("gold", session.bundles or ())):
        for bundle in bundles:
            numbers = " ".join(str(session.number(item_id)) for item_id in bundle.item_ids)
            console.print(Text(f"  {name}: {numbers} | {bundle.intent}"))
        if not bundles:
            console.print(Text(f"  {name}: no bundle"))
