"""The application: every command by its name, and the one place where errors are shown."""

import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

import routedk
from routedk.cli.cache import list_artifacts, prune
from routedk.cli.compile import compile
from routedk.cli.data import convert, describe
from routedk.cli.demo import demo
from routedk.cli.distill import distill
from routedk.cli.evaluate import evaluate
from routedk.cli.export import export
from routedk.cli.generate import generate
from routedk.cli.info import info
from routedk.cli.mcp import mcp
from routedk.cli.output import is_main_process, set_up_logging
from routedk.cli.review import review
from routedk.cli.search import export_trial, report, search
from routedk.cli.serve import serve
from routedk.cli.study import study
from routedk.cli.train import train
from routedk.errors import RouteDKError, one_line

_Command = Callable[..., None]

# Seconds that a launcher has to end its other processes after the main one has failed.
_PATIENCE = 15.0

_ORDER = (
    *("data", "distill", "train", "compile", "generate", "review", "evaluate"),
    *("search", "study", "export", "serve", "mcp", "demo", "info", "cache"),
)


class _InOrder(TyperGroup):
    def list_commands(self, ctx: object) -> list[str]:
        """The commands in the order of the workflow."""
        return [*_ORDER]


# Help without rich's tables, which truncate option names at 80 columns.
app = typer.Typer(
    cls=_InOrder, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
data = typer.Typer(help="Describe sessions and convert them.", no_args_is_help=True)
cache = typer.Typer(help="List and prune the artifact store.", no_args_is_help=True)
app.add_typer(data, name="data", epilog="Example: routedk data describe demo")
app.add_typer(cache, name="cache", epilog="Example: routedk cache list")
app.add_typer(search, name="search", short_help="Search knowledge, training and prompt.")


def _add(group: typer.Typer, *commands: _Command, **renamed: _Command) -> None:
    """Add commands; the last paragraph of a docstring is its example."""
    for name, command in ({c.__name__: c for c in commands} | renamed).items():
        *text, example = inspect.cleandoc(command.__doc__ or "").split("\n\n")
        joined = [" ".join(paragraph.split()) for paragraph in text]
        group.command(
            name,
            help="\n\n".join(joined),
            short_help=joined[0],
            epilog=" ".join(example.split()),
        )(command)


_add(app, distill, train, compile, generate, review, evaluate, study)
_add(app, serve, mcp, export, demo, info)
_add(data, describe, convert)
_add(cache, prune, list=list_artifacts)
_add(search, report, export=export_trial)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a usage or file error is one line on stderr and exit code 2.

    Args:
        arguments: Used instead of the process's arguments.
    """
    # litellm otherwise asks the network for a price list at import, with retries.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        given = None if arguments is None else list(arguments)
        sys.exit(app(args=given, prog_name="routedk", standalone_mode=False))
    except typer.TyperException as error:
        if (message := error.format_message()).startswith("Usage:"):  # A group without a command.
            typer.echo(message, err=True)
            sys.exit(2)
        _fail(f"{message.removesuffix('.')} (see --help)")
    except typer.Abort:
        sys.exit(1)
    except RouteDKError as error:
        _fail(str(error))
    except _lm_errors() as error:
        # An error of ours that came through dspy.LM, such as a spent budget; or the model's.
        if isinstance(error.__cause__, RouteDKError):
            _fail(str(error.__cause__))
        _fail(f"the language model failed: {error}{_lm_hint(error)}")
    except OSError as error:  # no permission, disk full, name too long: not RouteDK's fault
        place = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{place}{error.strerror or error}")


def _lm_errors() -> tuple[type[Exception], ...]:
    """DSPy's base class of language model errors, if a command has loaded DSPy."""
    dspy_errors = sys.modules.get("dspy.utils.exceptions")
    return () if dspy_errors is None else (dspy_errors.LMError,)


def _lm_hint(error: Exception) -> str:
    """What to do if a server failed or could not be reached; empty for a local failure."""
    from dspy.utils.exceptions import LMNotConfiguredError, LMProviderError, LMTransportError

    remote = isinstance(error, LMNotConfiguredError | LMProviderError | LMTransportError)
    return " (check its name, key and address)" if remote else ""


def _fail(message: str) -> NoReturn:
    """Say what is wrong and exit with code 2.

    Processes of one launcher usually fail alike, and the main one reports it. The others wait for
    the launcher to end them; one that is not ended reports after all, since the error is its own.
    """
    if not is_main_process():
        time.sleep(_PATIENCE)
    typer.echo(f"error: {one_line(message)}", err=True)
    sys.exit(2)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"routedk {routedk.__version__}")
        raise typer.Exit


_VERSION = typer.Option(
    "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
)


@app.callback(epilog="Example: routedk data describe demo")
def _root(version: Annotated[bool, _VERSION] = False) -> None:
    """Turn shopping sessions into bundles with a small language model."""
    set_up_logging()
