"""An existing study, read and not changed."""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from routedk.errors import SettingError
from routedk.optimizers.search.identity import IDENTITY, sessions_digest
from routedk.optimizers.search.storage import open_existing, storage_errors
from routedk.optimizers.search.storage_url import (
    JOURNAL,
    check_name,
    file_of,
    shown_url,
    storage_url,
)
from routedk.types import Session


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
            raise SettingError(
                f"study {name!r} in {shown} was not made by routedk search: name another"
            )
        return study


def check_sessions(
    study: optuna.Study, train: Sequence[Session], validation: Sequence[Session], seed: int
) -> list[Session]:
    """The validation sessions that a study scored its trials on, of the data it was made with.

    Args:
        study: One that `read_study` gave.
        train: Training sessions.
        validation: Validation sessions, perhaps more than were scored.
        seed: That the data were split by.

    Raises:
        SettingError: It was made with other sessions.
    """
    made_with = study.user_attrs[IDENTITY]
    data = made_with.get("data") or {}
    if data.get("seed", seed) != seed:
        raise SettingError(
            f"study {study.study_name!r} was made with --seed {data['seed']}, not {seed}: give the "
            "same"
        )
    by_id = {session.id: session for session in validation}
    scored = [by_id[name] for name in made_with["sessions"] if name in by_id]
    digest = sessions_digest([*train, *scored])
    if len(scored) < len(made_with["sessions"]) or data.get("digest", digest) != digest:
        raise SettingError(
            f"study {study.study_name!r} was made with other sessions: give --data and its options "
            "as they were given to routedk search"
        )
    return scored


def dashboard_command(name: str, storage: str | None = None) -> str:
    """What opens a study's storage in optuna-dashboard, without its password.

    Args:
        name: The study's.
        storage: As in `read_study`.
    """
    url = storage_url(storage, name)
    shown = url.removeprefix(JOURNAL) if url.startswith(JOURNAL) else shown_url(url)
    return f"optuna-dashboard {shown}"


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
