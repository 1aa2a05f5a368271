"""An existing study, read and not changed."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from routedk.data import Part
from routedk.errors import SettingError
from routedk.optimizers.search.identity import (
    IDENTITY,
    SAME_DATA,
    data_difference,
    data_record,
    is_data_record,
    not_ours,
    part_difference,
)
from routedk.optimizers.search.storage import open_existing, storage_errors
from routedk.optimizers.search.storage_url import (
    JOURNAL,
    check_name,
    file_of,
    shown_url,
    storage_url,
)
from routedk.types import Session

logger = logging.getLogger(__name__)


def read_study(name: str, storage: str | None = None) -> optuna.Study:
    """A study that `routedk.optimizers.search.study.run_study` made; nothing is written.

    Args:
        name: Its name.
        storage: URL of its storage; None for an SQLite file of its name.

    Raises:
        SettingError: There is no such study, or something else made it.
        RouteDKError: The storage failed.
    """
    url = storage_url(storage, check_name(name))
    shown = shown_url(url)
    with storage_errors(url):
        opened = open_existing(url)
        if opened is None:
            file = file_of(url)
            missing = file is not None and not file.is_file()
            raise SettingError(
                f"study {name!r}: there is no {file if missing else f'study in {shown}'}: name its "
                "storage with --storage, as it was given to routedk search"
            )
        names = optuna.get_all_study_names(opened)
        if name not in names:
            raise SettingError(
                f"study {name!r} is not in {shown}: there are {', '.join(sorted(names)) or 'none'}"
            )
        study = optuna.load_study(study_name=name, storage=opened)
        if IDENTITY not in study.user_attrs:
            raise not_ours(name, url)
        return study


def check_sessions(
    study: optuna.Study,
    parts: Mapping[Part, Sequence[Session]],
    *,
    seed: int,
    options: Mapping[str, str | None] | None = None,
) -> list[Session]:
    """The validation sessions that a study scored its trials on, of the data it was made with.

    Args:
        study: One that `read_study` gave.
        parts: The sessions of all splits, of validation perhaps more than were scored.
        seed: That they were split by.
        options: How they were read, see `data_record`.

    Raises:
        SettingError: It was made with other sessions, a test session is in another split, too, or
            the test split is not the one that was set aside then. Of a study that does not say
            which that was, a warning does.
    """
    made_with, name = study.user_attrs[IDENTITY], study.study_name
    by_id = {session.id: session for session in parts["val"]}
    scored = [by_id[session_id] for session_id in made_with["sessions"] if session_id in by_id]
    mine = data_record(parts["train"], scored, parts["test"], seed=seed, options=options)
    kept = made_with.get("data")
    theirs = kept if is_data_record(kept) else {**mine, "test": None}
    found = data_difference(theirs, mine)
    if found or len(scored) < len(made_with["sessions"]):
        raise SettingError(f"study {name!r} was made with {found or 'other sessions'}: {SAME_DATA}")
    both = {s.id for s in parts["test"]} & {s.id for s in (*parts["train"], *parts["val"])}
    if both:
        raise SettingError(
            f"{len(both)} test sessions are training or validation sessions, e.g. {min(both)!r}: "
            "split again"
        )
    if theirs.get("test") is None:
        logger.warning("study %s does not say which test sessions were set aside", name)
    elif found := part_difference(
        "test", theirs["test"], {"sessions": 0} if mine["test"] is None else mine["test"]
    ):
        raise SettingError(f"study {name!r} set aside {found}: {SAME_DATA}")
    return scored


def dashboard_command(name: str, storage: str | None = None) -> str:
    """What opens a study's storage in optuna-dashboard, without its password.

    Args:
        name: The study's.
        storage: As in `read_study`.
    """
    url = storage_url(storage, name)
    shown = url.removeprefix(JOURNAL) if url.startswith(JOURNAL) else shown_url(url)
    return shlex.join(["optuna-dashboard", shown])


def export_command(
    name: str, trial: int, storage: str | None = None, store: str | Path | None = None
) -> str:
    """What writes a trial as a program, without its storage's password.

    Args:
        name: The study's.
        trial: The trial's number.
        storage: As in `read_study`.
        store: Folder of the store; None for the one in the cache folder.
    """
    words = ["routedk", "search", "export", str(trial), "--study", name]
    if storage is not None:
        words += ["--storage", shown_url(storage)]
    if store is not None:
        words += ["--store", str(store)]
    return shlex.join([*words, "--output", f"{name}-{trial}"])


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have their scores, by number."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def best_trials(trials: Sequence[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The best on validation, each of other settings.

    Args:
        trials: Complete ones.
        count: How many at most. Of equal matched F1 the one with fewer tokens comes first, then
            the earlier one.
    """
    ordered = sorted(trials, key=lambda t: (-t.user_attrs["f1"], t.user_attrs["tokens"], t.number))
    found: dict[str, FrozenTrial] = {}
    for trial in ordered:
        found.setdefault(repr(sorted(trial.user_attrs["settings"].items())), trial)
    return list(found.values())[:count]
