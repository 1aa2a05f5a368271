"""The application: every command by its name, and the one place where errors are shown."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

import routedk
from routedk.cli.cache import list_artifacts, prune, verify
from routedk.cli.compile import compile
from routedk.cli.data import convert, describe
from routedk.cli.demo import demo
from routedk.cli.distill import distill
from routedk.cli.evaluate import evaluate_command
from routedk.cli.export import export
from routedk.cli.generate import generate
from routedk.cli.info import info
from routedk.cli.search import search
from routedk.cli.search_report import export_trial, report
from routedk.cli.train import train
from routedk.errors import RouteDKError

_HELP = "Turn shopping sessions into bundles with a small language model."

# Seconds that a launcher has to end the others of its processes after the first has failed.
_PATIENCE = 15.0

app = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)
data = typer.Typer(help="Look at sessions and convert them.", no_args_is_help=True)
app.add_typer(data, name="data", epilog="Example: routedk data describe demo")

cache = typer.Typer(help="Look after what a search keeps.", no_args_is_help=True)
app.add_typer(cache, name="cache", epilog="Example: routedk cache list")

app.add_typer(search, name="search")
search.command("report", epilog="Example: routedk search report --study mine --output report")(
    report
)
search.command("export", epilog="Example: routedk search export 7 --study mine --output best")(
    export_trial
)

cache.command("list", epilog="Example: routedk cache list --stage expert")(list_artifacts)
cache.command(epilog="Example: routedk cache prune --older-than 30 --max-size 2GB --dry-run")(prune)
cache.command(epilog="Example: routedk cache verify")(verify)
data.command(epilog="Example: routedk data describe demo --json")(describe)
data.command(epilog="Example: routedk data convert bundlerec/clothing clothing.jsonl")(convert)
app.command(epilog="Example: routedk distill --data demo --output knowledge")(distill)
app.command(
    epilog="Example: routedk compile --data demo --knowledge knowledge/knowledge.jsonl "
    "--lm openai/gpt-4o-mini --output program.json"
)(compile)
app.command(
    "evaluate", epilog="Example: routedk evaluate --data demo --baselines --output result.json"
)(evaluate_command)
app.command(epilog="Example: routedk demo --output artifacts/demo")(demo)
app.command(
    epilog="Example: routedk train --data demo --knowledge knowledge/knowledge.jsonl "
    "--output experts"
)(train)
app.command(
    epilog="Example: routedk generate --data demo --split test --experts experts "
    "--program program.json --output bundles.jsonl"
)(generate)
app.command(
    epilog="Example: routedk export --experts experts --form prototypes --k 4 --data demo "
    "--output prototypes"
)(export)
app.command(epilog="Example: routedk info --json")(info)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error of RouteDK's or of a file is one line on stderr and code 2.

    Args:
        arguments: Instead of the process's arguments.
    """
    # litellm otherwise asks the network for a price list at import, with retries.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        app(args=None if arguments is None else list(arguments), prog_name="routedk")
    except RouteDKError as error:
        _fail(str(error))
    except OSError as error:  # no permission, disk full, name too long: nothing of ours is wrong
        place = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{place}{error.strerror or error}")


def _fail(message: str) -> NoReturn:
    """Say what is wrong and leave.

    Of several processes under a launcher all fail alike, and the first one says so: the others
    wait to be ended, and speak where nobody ends them, since then the error is theirs alone.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_PATIENCE)
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(2)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"routedk {routedk.__version__}")
        raise typer.Exit


@app.callback(epilog="Example: routedk data describe demo")
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    """Turn shopping sessions into bundles with a small language model."""
