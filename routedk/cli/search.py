"""``routedk search``: one study over knowledge and fusion."""

import random
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from routedk.cli.lm import Dtype, lm_errors
from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.cli.output import log_progress, quiet_optuna
from routedk.errors import DataError, SettingError
from routedk.types import Session

_STUDY, _TRIALS = "Study", "Trials"

search = typer.Typer(invoke_without_command=True)


@search.callback(epilog="Example: routedk search --data demo --study mine --trials 24 --minutes 60")
@takes_sessions(split="train", default="")
def run(
    source: SessionSource,
    context: typer.Context,
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the study. Required.", rich_help_panel=_STUDY),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where it is kept: sqlite:///FILE, any database's URL, or journal:FILE.",
            show_default="sqlite:///NAME.db",
            rich_help_panel=_STUDY,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the study of this name, or join its workers.",
            rich_help_panel=_STUDY,
        ),
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Trials of the whole study, all its workers'.", rich_help_panel=_STUDY
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", help="Minutes that trials begin in here.", rich_help_panel=_STUDY
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="T", help="Tokens of all answers of the whole study.", rich_help_panel=_STUDY
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="both: matched F1 up and tokens per session down; f1: the first alone, and "
            "trials can be pruned.",
            rich_help_panel=_STUDY,
        ),
    ] = "both",
    sampler: Annotated[
        str,
        typer.Option(metavar="NAME", help="tpe, nsgaii, gp or random.", rich_help_panel=_STUDY),
    ] = "tpe",
    pruner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of --objective f1: wilcoxon, median, hyperband or none.",
            show_default="wilcoxon",
            rich_help_panel=_STUDY,
        ),
    ] = None,
    report_to: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Track trials with mlflow, trackio or wandb; none for the study alone.",
            rich_help_panel=_STUDY,
        ),
    ] = "none",
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML of the dimensions that are not to be searched as by default.",
            rich_help_panel=_TRIALS,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where knowledge, experts, programs and answers are kept to be used again.",
            show_default="in the cache folder",
            rich_help_panel=_TRIALS,
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Folder or hub name of a causal LM; embedded if unset.",
            rich_help_panel=_TRIALS,
        ),
    ] = None,
    dtype: Dtype = None,
    max_validation: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most validation sessions, a seeded sample; unset: all.",
            rich_help_panel=_TRIALS,
        ),
    ] = None,
) -> None:
    """Search which knowledge to distil, how to train on it and how to show it.

    Each trial distils, trains, compiles and answers the validation sessions; what trials have in
    common is made once. The test split is not looked at. The same command with --resume goes on
    with a study that was cut, and on further machines it joins it.
    """
    if context.invoked_subcommand is not None:
        return
    for name, value in (("--data PATH", source.path), ("--study NAME", study)):
        if not value:
            raise SettingError(f"which {name.split()[0].strip('-')}? give {name}")
    if source.split != "train":
        raise SettingError(
            f"split is {source.split!r}: a search trains on train and scores on val, leave --split "
            "out"
        )
    from routedk.optimizers.search.budget import Budget
    from routedk.optimizers.search.identity import data_record
    from routedk.optimizers.search.space import SearchSpace
    from routedk.optimizers.search.space_file import read_space
    from routedk.optimizers.search.storage_url import shown_url
    from routedk.optimizers.search.study import StudySettings, check_study, run_study
    from routedk.optimizers.search.tracking import make_tracker

    seed = source.options.seed
    budget = Budget(trials=trials, minutes=minutes, tokens=tokens)
    settings: Any = {"name": study, "storage": storage, "objective": objective, "resume": resume}
    settings = StudySettings(**settings, sampler=sampler, pruner=pruner, seed=seed)
    tracker = make_tracker(report_to)
    chosen = SearchSpace() if space is None else read_space(space)
    parts = source.load_parts()
    training = parts["train"]
    validation = _validation(source, parts["val"], max_validation)
    warn_untitled([*training, *validation])
    log_progress()
    quiet_optuna()
    if student is not None and Path(student).is_dir():
        student = str(Path(student).resolve())
    identity = {
        "data": data_record(
            training, validation, parts["test"], seed=seed, options=source.reading()
        ),
        "student": student or "default",
        "dtype": dtype,
    }
    # What is wrong with the study is said before anything heavy is loaded.
    check_study(settings, chosen, validation, identity=identity)
    from routedk.optimizers.search.failure import TrialFailure
    from routedk.optimizers.search.pipeline import Pipeline

    pipeline = Pipeline(
        train=training,
        validation=validation,
        store=store,
        student=student,
        seed=seed,
        dtype=dtype,
    )
    with closing(pipeline), lm_errors():
        # What is wrong for every trial is said before there is a study.
        pipeline.check()
        done = run_study(
            pipeline,
            validation,
            chosen,
            settings,
            budget,
            identity=identity,
            on_trial=() if tracker is None else (tracker,),
        )
    best = max(done.best_trials, key=lambda trial: trial.values[0], default=None)
    if best is None:
        raise TrialFailure(f"study {study}: no trial is complete, the log says why")
    typer.echo(
        f"Best matched F1 on {len(validation)} validation sessions: trial {best.number}, "
        f"{best.values[0]:.3f}"
    )
    typer.echo(f"Study: {study} in {shown_url(settings.url)}")


def _validation(source: SessionSource, sessions: list[Session], most: int | None) -> list[Session]:
    """The validation sessions with gold, or a seeded sample of them in their order."""
    found = [session for session in sessions if session.gold]
    if not found:
        raise DataError(
            "the split 'val' has no session with gold bundles",
            path=source.path,
            hint="trials are scored on annotated sessions",
        )
    if most is None or most >= len(found):
        return found
    places = random.Random(source.options.seed).sample(range(len(found)), most)
    return [found[place] for place in sorted(places)]
