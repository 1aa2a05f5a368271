"""Runs a benchmark as a command: an error in its input is one line, not a traceback."""

from collections.abc import Callable
from typing import Any

import typer
from dspy.utils.exceptions import LMError

from routedk.errors import RouteDKError


def run_command(main: Callable[..., Any]) -> None:
    """Run a function with typer's annotations as the command of a module.

    Args:
        main: What the command does.
    """
    app = typer.Typer()
    app.command()(main)
    try:
        app()
    except (RouteDKError, LMError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise SystemExit(1) from None
