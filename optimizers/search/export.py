"""`export_trial`: a trial as a ready-to-use folder of program, experts and instructions."""

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from routedk.artifacts import ArtifactStore, check_output, copy_artifact
from routedk.errors import SettingError
from routedk.optimizers.search.config import SearchConfig, StudyConfig
from routedk.optimizers.search.space import TrialSettings, in_words
from routedk.optimizers.search.study import read_study
from routedk.optimizers.search.trial import runner_of
from routedk.types import Session


def export_trial(
    train: Sequence[Session],
    validation: Sequence[Session],
    trial: int,
    output: str | Path,
    config: StudyConfig | None = None,
    *,
    store: ArtifactStore | str | Path | None = None,
) -> Path:
    """Write a trial's ``program.json``, its ``experts`` if it trained any, and a ``README.md``.

    What the store holds is copied, the rest is rebuilt. ``program.json`` contains the training
    sessions that it shows as neighbours.

    Args:
        train: Training sessions, as they were given to `search`.
        validation: Validation sessions, likewise.
        trial: Number of a complete trial.
        output: A new or empty folder.
        config: Which study; None for the defaults.
        store: The artifact store of the search or its folder; None for the one in the cache folder.

    Returns:
        The folder.

    Raises:
        SettingError: There is no such study or trial, it is not complete, or the sessions are not
            the study's.
        ArtifactError: The folder is not empty.
    """
    check_output(output)
    study = read_study(config or StudyConfig())
    runner = runner_of(study, train, validation, store)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found = {one.number: one for one in complete}
    if trial not in found:
        numbers = ", ".join(map(str, found)) or "none yet"
        raise SettingError(
            f"study {study.study_name!r} has no complete trial {trial}: complete are {numbers}"
        )
    settings = TrialSettings(**found[trial].user_attrs["settings"])
    with tempfile.TemporaryDirectory() as scratch, runner.built(settings) as (program, experts, _):
        ready = Path(scratch) / "program"  # A temporary folder is its owner's only.
        program.save(ready / "program.json")
        if experts is not None:
            shutil.copytree(experts, ready / "experts")
        text = _readme(found[trial], settings, runner.config)
        (ready / "README.md").write_text(text, encoding="utf-8")
        copy_artifact(ready, output)
    return Path(output)


def _readme(trial: FrozenTrial, settings: TrialSettings, config: SearchConfig) -> str:
    options = {
        "program": "program.json",
        "experts": "experts" if settings.experts else None,
        "student": config.student,
        "dtype": config.dtype,
    }
    words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
    f1, tokens = trial.user_attrs["f1"], trial.user_attrs["tokens"]
    return f"""\
# Trial {trial.number}: {in_words(settings.to_dict())}

In this folder, with your sessions in place of SESSIONS:

    routedk generate --data SESSIONS {shlex.join(words)} --output bundles.jsonl

On validation it has a matched F1 of {f1:.3f}, which flatters the best of many trials, and
{tokens:.1f} tokens per session. `routedk search report` with `--data` says more.
"""
