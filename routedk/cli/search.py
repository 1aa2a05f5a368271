"""``routedk search``: one study over knowledge, training and prompt, and what it found."""

import shlex
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

import routedk
from routedk.cli.config_options import with_config_options
from routedk.cli.output import STORE, OutputFolder, refuse_foreign
from routedk.cli.sessions import DataPath, load_parts
from routedk.data import DataOptions
from routedk.errors import SettingError
from routedk.optimizers.search.config import ReportConfig, SearchConfig, StudyConfig
from routedk.optimizers.search.space import in_words

_DATA = "Sessions, as they were given to the search."
OptionalData = Annotated[str | None, typer.Option("--data", metavar="PATH", help=_DATA)]
_STORE = f"{STORE[:-1]}. Also a URL of fsspec's, such as s3://BUCKET/PATH."
StoreFolder = Annotated[str | None, typer.Option(metavar="DIR", help=_STORE)]

search = typer.Typer(invoke_without_command=True)


@search.callback(epilog="Example: routedk search --data demo --study mine --trials 24 --minutes 60")
@with_config_options
def run(
    context: typer.Context,
    config: SearchConfig,
    options: DataOptions,
    data: OptionalData = None,
    store: StoreFolder = None,
) -> None:
    """Search which knowledge to distill, how to train on it and how to show it.

    Each trial distills, trains, compiles and answers the validation sessions; what trials have in
    common is made once. The test split is not used. The same command resumes an interrupted study
    and, on other machines, joins it.
    """
    if context.invoked_subcommand is not None:
        return
    if data is None:
        raise SettingError("which sessions? give --data PATH")
    parts = load_parts(data, options)
    quiet_optuna()
    study = routedk.search(parts["train"], parts["val"], config, store=store)
    best = max(
        study.best_trials, key=lambda t: (t.values[0], -t.user_attrs["tokens"]), default=None
    )
    if best is None:
        raise SettingError(f"study {config.study}: no trial is complete, the log says why")
    given = _given(data, config, options, store)
    typer.echo(f"Best on validation: trial {best.number}, matched F1 {best.values[0]:.3f}")
    typer.echo(f"Its settings: {in_words(best.user_attrs['settings'])}")
    typer.echo(f"To use it: routedk search export {best.number} {given} --output best")
    typer.echo(f"On the test split, beside others: routedk search report {given} --output report")


def quiet_optuna() -> None:
    """Leave it to RouteDK to log trials, on one line each and without tracebacks."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _is_report(document: dict[str, Any]) -> bool:
    """Whether a report is that of a search; those of paper studies have a title."""
    return document.keys() >= {"study", "made_with"} and "title" not in document


def _given(data: str, config: SearchConfig, options: DataOptions, store: str | None) -> str:
    """The options with which other commands find a search and its data."""
    values: dict[str, Any] = {
        "data": data,
        "study": config.study,
        "storage": config.storage,
        "store": store,
    }
    usual = asdict(DataOptions())
    values |= {name: value for name, value in asdict(options).items() if value != usual[name]}
    words = (
        (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
        for name, value in values.items()
        if value is not None
    )
    return shlex.join(chain.from_iterable(words))


@with_config_options
def report(
    output: OutputFolder,
    config: ReportConfig,
    options: DataOptions,
    data: OptionalData = None,
    store: StoreFolder = None,
) -> None:
    """Report what a study found: report.html, which is self-contained, and report.json.

    With the --data of routedk search, the best configurations are scored on the untouched test
    split, with intervals, beside embedding-clusters and pair-clusters, and three sessions are shown
    with their bundles. Without it, the report covers validation alone, and keeps the test scores of
    an earlier report in the folder.

    Example: routedk search report --data demo --study mine --output report
    """
    from routedk.optimizers.search import report_search
    from routedk.optimizers.search.report import PAGE, REPORT

    refuse_foreign(output / REPORT, _is_report)
    if not (output / REPORT).exists():
        refuse_foreign(output / PAGE, lambda document: False)
    parts = None if data is None else load_parts(data, options)
    found = report_search(output, config, parts=parts, store=store)
    if found["best"]:
        best = found["best"][0]
        typer.echo(f"Chosen: trial {best['trial']}, matched F1 on validation {best['f1']:.3f}")
    typer.echo(f"Report: {output / 'report.html'}")


@with_config_options
def export_trial(
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a complete trial.")],
    data: DataPath,
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the program.")],
    config: StudyConfig,
    options: DataOptions,
    store: StoreFolder = None,
) -> None:
    """Write a trial as a ready program: program.json, its experts, and a README with the command.

    What the artifact store holds is copied; the rest is made again.

    Example: routedk search export 7 --data demo --study mine --output best
    """
    from routedk.optimizers.search import export_trial as export

    parts = load_parts(data, options)
    export(parts["train"], parts["val"], trial, output, config, store=store)
    typer.echo(f"Trial {trial} of {config.study}: {output / 'README.md'} says how to use it.")
