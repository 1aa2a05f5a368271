"""Tables and JSON on stdout."""

import json
from collections.abc import Iterable, Sequence

import typer


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


def quiet_libraries() -> None:
    """Keep libraries' advice to programmers off the user's screen."""
    import logging
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def silence_libraries() -> None:
    """As `quiet_libraries`, without their progress bars, too: another process shows them."""
    from transformers.utils.logging import disable_progress_bar

    quiet_libraries()
    disable_progress_bar()


def quiet_optuna() -> None:
    """Optuna tells of trials, too, and warns of those that fail: the log has it already."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


def log_progress() -> None:
    """Show the package's progress messages on stderr, and quiet its libraries."""
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    logger = logging.getLogger("routedk")
    if not logger.handlers:
        logger.addHandler(RichHandler(console=Console(stderr=True), show_path=False))
        logger.setLevel(logging.INFO)
    quiet_libraries()
