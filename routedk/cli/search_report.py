"""``routedk search report`` and ``routedk search export``: what a study found."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routedk.cli.lm import lm_errors
from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.cli.output import log_progress, quiet_optuna
from routedk.data import has_title, load_sessions, split_sessions
from routedk.errors import SettingError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from routedk.eval.suite import BaselineData
    from routedk.optimizers.search.retest import Tested
    from routedk.types import Session

StudyName = Annotated[str, typer.Option(metavar="NAME", help="Name of the study.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where it is kept, as given to routedk search.",
        show_default="sqlite:///NAME.db",
    ),
]
StoreFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the search kept knowledge, experts, programs and answers.",
        show_default="in the cache folder",
    ),
]


@takes_sessions(split="test", default="")
def report(
    source: SessionSource,
    study: StudyName,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")],
    storage: Storage = None,
    store: StoreFolder = None,
    best: Annotated[int, typer.Option(min=1, help="How many of the best trials to name.")] = 3,
    default: Annotated[
        bool,
        typer.Option(help="Test the default configuration, too; it may have to be trained."),
    ] = True,
) -> None:
    """Say what a study found: report.html, which needs no other file, report.json and PNGs.

    With --data, as it was given to routedk search, the best configurations are scored on the
    untouched test split, with intervals, beside the default configuration, embedding-clusters and
    pair-clusters. Without it the report is of validation alone.
    """
    from routedk.optimizers.search.reading import (
        best_trials,
        complete_trials,
        dashboard_command,
        export_command,
        read_study,
    )
    from routedk.optimizers.search.report import PAGE, write_report

    if source.split != "test":
        raise SettingError(f"split is {source.split!r}: a study is tested on test, leave it out")
    quiet_optuna()
    log_progress()
    found = read_study(study, storage)
    chosen = best_trials(complete_trials(found), best)
    tested: list[Tested] = []
    if source.path and chosen:
        tested = _test(source, found, chosen, store, default)
    record = write_report(
        found,
        output,
        best=chosen,
        tested=tested,
        config={**source.config(), "leaks": source.options.untitled == "drop"},
        dashboard=dashboard_command(study, storage),
        export=export_command(study, chosen[0].number, storage, store) if chosen else "",
    )
    for one in record["best"][:1]:
        typer.echo(
            f"Chosen: trial {one['trial']}, matched F1 on validation {one['validation']['f1']:.3f}"
        )
    for line in tested:
        f1 = line.f1
        typer.echo(f"{line.name}: on test {f1.value:.3f} ({f1.low:.3f} to {f1.high:.3f})")
    typer.echo(f"Saved by the store: {record['store']['share_saved']:.1%} of the trial time")
    typer.echo(f"Report: {output / PAGE}")


def export_trial(
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a complete trial.")],
    study: StudyName,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the program goes: a new folder.")
    ],
    storage: Storage = None,
    store: StoreFolder = None,
) -> None:
    """Write a trial as a ready program: program.json, its experts, and a README with the command.

    Everything is taken from the store; nothing is made anew.
    """
    from routedk.artifacts import ArtifactStore
    from routedk.optimizers.search import trial_export
    from routedk.optimizers.search.reading import read_study

    quiet_optuna()
    kept = ArtifactStore(store)
    trial_export.export_trial(read_study(study, storage), trial, kept, output)
    typer.echo(f"Trial {trial} of {study}: {output / trial_export.README} says how to use it.")


def _test(
    source: SessionSource,
    study: "optuna.Study",
    chosen: "list[FrozenTrial]",
    store: Path | None,
    default: bool,
) -> "list[Tested]":
    from routedk.optimizers.search.identity import IDENTITY
    from routedk.optimizers.search.pipeline import Pipeline
    from routedk.optimizers.search.reading import check_sessions
    from routedk.optimizers.search.retest import default_settings, retest

    everything = load_sessions(source.path, source.options)
    parts: Any = split_sessions(everything, source.options)
    seed = source.options.seed
    validation = check_sessions(study, parts, seed=seed, options=source.reading())
    test = [session for session in parts["test"] if session.gold]
    warn_untitled(test)
    made_with = study.user_attrs[IDENTITY]
    student = made_with.get("student") or "default"
    pipeline = Pipeline(
        train=parts["train"],
        validation=validation,
        store=store,
        student=None if student == "default" else student,
        seed=seed,
        dtype=made_with.get("dtype"),
    )
    with closing(pipeline), lm_errors():
        return retest(
            chosen,
            pipeline,
            test,
            seed=seed,
            baselines=_baseline_data(everything, parts, test),
            default=default_settings() if default else None,
        )


def _baseline_data(
    everything: "list[Session]", parts: "dict[str, list[Session]]", test: "list[Session]"
) -> "BaselineData | None":
    """As `routedk evaluate --baselines` has it; None where titles are missing."""
    from routedk.eval.suite import BaselineData
    from routedk.similarity import default_encoder

    validation = [session for session in parts["val"] if session.gold]
    if not all(has_title(item) for s in [*test, *validation] for item in s.items):
        typer.echo("Items without a title: the baselines are left out.", err=True)
        return None
    training = [s for s in parts["train"] if s.gold and all(map(has_title, s.items))]
    return BaselineData(
        catalogue=everything, validation=validation, encoder=default_encoder(), training=training
    )
