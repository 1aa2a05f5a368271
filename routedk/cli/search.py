"""``routedk search``: one study over knowledge, training and prompt."""

from pathlib import Path
from typing import Annotated

import typer

from routedk.cli.lm import lm_errors
from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.cli.output import log_progress

search = typer.Typer(invoke_without_command=True)


@search.callback(epilog="Example: routedk search --data demo --study mine --trials 24 --minutes 60")
@takes_sessions(split="train", default="")
def run(
    source: SessionSource,
    context: typer.Context,
    study: Annotated[str, typer.Option(help="Name of the study.")] = "search",
    storage: Annotated[str | None, typer.Option(help="URL of the storage.")] = None,
    space: Annotated[Path | None, typer.Option(help="TOML file of dimensions.")] = None,
    trials: Annotated[int, typer.Option(help="Trials of the whole study.")] = 24,
    minutes: Annotated[float | None, typer.Option(help="Minutes of this worker.")] = None,
) -> None:
    """Search which knowledge to distil, how to train on it and how to show it.

    The test split is not looked at. The same command resumes a study that was interrupted.
    """
    if context.invoked_subcommand is not None:
        return
    from routedk.optimizers.search import SearchConfig
    from routedk.optimizers.search import search as run_search

    config = SearchConfig(
        study=study,
        storage=storage,
        space=space,
        trials=trials,
        minutes=minutes,
        seed=source.options.seed,
    )
    parts = source.load_parts()
    warn_untitled([*parts["train"], *parts["val"]])
    log_progress()
    with lm_errors():
        found = run_search(parts["train"], parts["val"], config)
    for trial in found.best_trials:
        typer.echo(f"Trial {trial.number}: {trial.values}")
