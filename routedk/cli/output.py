"""What commands show: tables and JSON on stdout, progress and log on stderr."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routedk.errors import DataError

if TYPE_CHECKING:
    from rich.progress import TaskID

_OUTPUT = "Where the result goes; an earlier one is replaced."
OutputFolder = Annotated[Path, typer.Option("--output", metavar="DIR", help=_OUTPUT)]
OutputFile = Annotated[Path, typer.Option("--output", metavar="FILE", help=_OUTPUT)]


def print_json(value: object) -> None:
    """Print a value as indented JSON, without colours."""
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers stand to the right, text is taken literally."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(
            *(
                Text(_shown(cell), justify="right" if isinstance(cell, int | float) else "left")
                for cell in row
            )
        )
    console = Console()
    console.print(Text(title, style="bold"))
    console.print(table)


def _shown(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}".replace(",", " ")
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Progress bars on stderr, where that is a terminal.

    Yields:
        To be called after each piece of a step: the step's name, pieces done, and how many there
        are, None where nobody knows.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(console=console, transient=True, disable=hidden) as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int | None) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done)

        yield show


def quiet_libraries() -> None:
    """Keep libraries' advice to programmers off the user's screen."""
    import logging
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("transformers", "dspy.clients.lm"):
        logging.getLogger(name).setLevel(logging.ERROR)


def log_progress() -> None:
    """Show the package's progress messages on stderr."""
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    logger = logging.getLogger("routedk")
    if not logger.handlers:
        logger.addHandler(RichHandler(console=Console(stderr=True), show_path=False))
        logger.setLevel(logging.INFO)


def refuse_foreign(output: Path, is_ours: Callable[[Path], bool]) -> None:
    """Check, before the work, that an output file is new, empty, or one that we may replace.

    Args:
        output: The file.
        is_ours: Whether a file is an earlier output; may raise DataError for one that is not.

    Raises:
        DataError: Something else is there.
    """
    try:
        ours = not output.exists() or output.stat().st_size == 0 or is_ours(output)
    except DataError:
        ours = False
    if not ours:
        raise DataError(
            "exists already, and this command did not write it",
            path=output,
            hint="name another --output, or remove the file",
        )


def is_main_process() -> bool:
    """Whether this process is the one that speaks, of those that a launcher started together."""
    return os.environ.get("RANK", "0") == "0"
