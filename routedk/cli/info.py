"""``routedk info``: what is installed, and where things are kept."""

import platform
from importlib import metadata
from typing import Annotated

import typer

import routedk
from routedk.cache import cache_folder
from routedk.cli.output import print_json, print_table

_LIBRARIES = "torch transformers peft trl dspy optuna datasets sentence-transformers scikit-learn"


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show versions, the license, and the cache folders of RouteDK and DSPy.

    Example: routedk info --json
    """
    from dspy.clients import DISK_CACHE_DIR

    from routedk.adapters.student import embedded_folder

    facts = {
        "routedk": routedk.__version__,
        "license": "Apache-2.0",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cache": str(cache_folder()),
        "embedded_student": str(embedded_folder()),
        "dspy_cache": DISK_CACHE_DIR,
    }
    versions = {name: metadata.version(name) for name in _LIBRARIES.split()}
    if as_json:
        print_json({**facts, "versions": versions})
    else:
        print_table("RouteDK", ("what", "value"), [*facts.items(), *versions.items()])
