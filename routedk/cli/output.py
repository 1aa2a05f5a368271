"""Output of commands: tables and JSON on stdout, progress and log on stderr."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from routedk.errors import DataError, one_line
from routedk.files import lines_of, open_file, printable_json, read_json
from routedk.parsing import scan_jsonl

STORE = "The artifact store; unset: the one in the cache folder."
_LONGEST = 10_000
_HANDLER = "routedk"
_OUTPUT = "Where the result goes; an earlier one is replaced."
OutputFolder = Annotated[Path, typer.Option("--output", metavar="DIR", help=_OUTPUT)]
OptionalFolder = Annotated[Path | None, typer.Option("--output", metavar="DIR", help=_OUTPUT)]
OutputFile = Annotated[Path, typer.Option("--output", metavar="FILE", help=_OUTPUT)]


def print_json(value: object) -> None:
    """Print a value as indented JSON, without colors."""
    typer.echo(printable_json(value, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned, text is taken literally."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def shown(cell: object) -> Text:
        if isinstance(cell, bool) or not isinstance(cell, int | float):
            return Text(one_line(str(cell), _LONGEST), overflow="fold")
        return Text(f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}", justify="right")

    table = Table(*columns)
    for row in rows:
        table.add_row(*map(shown, row))
    console = Console()
    console.print(Text(title, style="bold"))
    console.print(table)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Progress bars on stderr, if it is a terminal.

    Yields:
        A function to call after each piece of a step, with the step's name, the pieces done, and
        their total, None if it is unknown.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(console=console, transient=True, disable=hidden) as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int | None) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done)

        yield show


def set_up_logging() -> None:
    """Show our progress messages on stderr, and hide libraries' warnings to developers.

    If stderr is not a terminal, there are no bars; tqdm reads this setting on import.
    """
    from rich.console import Console
    from rich.logging import RichHandler

    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("transformers", "dspy.clients.lm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("LiteLLM").propagate = False  # It has its own handler.
    # On the root logger: a library that finds no handler there adds its own.
    root = logging.getLogger()
    for handler in [one for one in root.handlers if one.name == _HANDLER]:
        root.removeHandler(handler)  # Its stream may be an earlier stderr.
    if is_main_process():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        if sys.stderr.isatty():
            handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.set_name(_HANDLER)
        root.addHandler(handler)
        logging.getLogger("routedk").setLevel(logging.INFO)


def refuse_foreign(output: Path, is_ours: Callable[[dict[str, Any]], bool]) -> None:
    """Check, before the work, that an output file is new, empty, or one that we may replace.

    Args:
        output: The file.
        is_ours: Whether an earlier output would begin with this JSON object.

    Raises:
        DataError: Something else is there.
    """
    if not output.exists():
        return
    try:
        with open_file(output) as file:
            line = next(lines_of(file), b"")
        # JSONL, or one document over many lines.
        first: object = next((one for _, one in scan_jsonl([line], path=output)), {})
        if isinstance(first, DataError):
            first = read_json(output)
        ours = not line or (isinstance(first, dict) and is_ours(first))
    except DataError:
        ours = False
    if not ours:
        raise DataError(
            "exists already, and this command did not write it",
            path=output,
            hint="name another --output, or remove the file",
        )


def is_main_process() -> bool:
    """Whether this process is the one that prints, among those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"
