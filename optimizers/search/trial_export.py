"""A trial as a ready program: ``program.json``, its experts, and how they are used."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from routedk.artifacts.manifest import content_problems, read_manifest
from routedk.artifacts.store import ArtifactStore
from routedk.errors import ArtifactError, SettingError
from routedk.optimizers.search.identity import IDENTITY
from routedk.optimizers.search.reading import complete_trials
from routedk.optimizers.search.settings import TrialSettings, shown_value

PROGRAM = "program.json"
EXPERTS = "experts"
README = "README.md"
_DRAWN = {
    "consensus": ("consensus", "Consensus", "Consensus(generator, n={draws})"),
}


def export_trial(
    study: optuna.Study, number: int, store: ArtifactStore, folder: str | Path
) -> None:
    """Write a trial's program, its experts if it trained any, and a README.

    Args:
        study: One that `read_study` gave.
        number: Of a complete trial.
        store: The one that the study was run with.
        folder: Where it goes: a new folder.

    Raises:
        SettingError: There is no such trial, or it is not complete; the message says which are.
        ArtifactError: A part of the trial is no longer in the store, or the folder exists.
    """
    target = Path(folder).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArtifactError(f"{folder}: exists already: name another folder")
    trial = _complete(study, number)
    settings = TrialSettings(**trial.user_attrs["settings"])
    program = _part(trial, store, ("program",))
    experts = _part(trial, store, ("fused", "router")) if settings.use.trains else None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        ready = Path(scratch) / "ready"
        ready.mkdir()
        shutil.copyfile(program / PROGRAM, ready / PROGRAM)
        if experts is not None:
            shutil.copytree(experts / EXPERTS, ready / EXPERTS)
        text = _readme(study, trial, settings, _draws(trial, store))
        (ready / README).write_text(text, encoding="utf-8")
        ready.replace(target)


def _complete(study: optuna.Study, number: int) -> FrozenTrial:
    trials = study.get_trials(deepcopy=False)
    complete = [trial.number for trial in complete_trials(study)]
    if number in complete:
        return trials[number]
    if not 0 <= number < len(trials):
        problem = "there is none"
    else:
        trial = trials[number]
        reason = trial.user_attrs.get("failure")
        states = {TrialState.FAIL: "failed", TrialState.PRUNED: "was pruned"}
        problem = f"it {states.get(trial.state, 'is not finished')}" + f": {reason}" * bool(reason)
    can_be = f"complete are {_ranges(complete)}" if complete else "no trial is complete yet"
    raise SettingError(f"trial {number} of study {study.study_name!r}: {problem}; {can_be}")


def _ranges(numbers: Sequence[int]) -> str:
    """Like ``0-3, 5``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(f"{one[0]}-{one[-1]}" if len(one) > 1 else f"{one[0]}" for one in found)


def _part(trial: FrozenTrial, store: ArtifactStore, stages: Sequence[str]) -> Path:
    """The last of the trial's parts of some stages: what it answered with."""
    used = [part for part in trial.user_attrs["parts"] if part["stage"] in stages]
    if not used:
        raise ArtifactError(
            f"trial {trial.number} has no part {' or '.join(stages)}: it was not run by routedk "
            "search, export another"
        )
    stage, key = used[-1]["stage"], used[-1]["key"]
    part = store.folder(stage, key)
    if not part.is_dir():
        raise ArtifactError(
            f"{store.root}: part {stage} {key[:12]} of trial {trial.number} is not there: name the "
            "store that the study was run with; if it was pruned, routedk search report with "
            "--data makes the parts of the best trials again"
        )
    if found := content_problems(part):
        raise ArtifactError(
            f"{part}: {found[0]}: remove it with routedk cache verify --remove; routedk "
            "search report with --data makes the parts of the best trials again"
        )
    return part


def _draws(trial: FrozenTrial, store: ArtifactStore) -> Mapping[str, Any]:
    """How its answers were drawn, as far as the store still knows."""
    for part in trial.user_attrs["parts"]:
        if part["stage"] == "predictions":
            folder = store.folder("predictions", part["key"])
            if folder.is_dir():
                kept: dict[str, Any] = read_manifest(folder).recipe.get("settings", {})
                return kept
    return {}


def _readme(
    study: optuna.Study, trial: FrozenTrial, settings: TrialSettings, drawn: Mapping[str, Any]
) -> str:
    made_with = study.user_attrs[IDENTITY]
    student, dtype = made_with.get("student") or "default", made_with.get("dtype")
    options = [f"--{EXPERTS} {EXPERTS}"] if settings.use.trains else []
    if student != "default" or not options:
        options.append(f"--student {student}")
    if dtype is not None:
        options.append(f"--dtype {dtype}")
    command = (
        f"routedk generate --data SESSIONS {' '.join(options)} --program {PROGRAM} "
        "--output bundles.jsonl"
    )
    attrs = trial.user_attrs
    lines = [
        f"# Trial {trial.number} of study {study.study_name}",
        "",
        "In this folder, with the sessions in the place of SESSIONS:",
        "",
        f"    {command}",
        "",
        f"Matched F1 {attrs['f1']:.3f}, {attrs['tokens']:.1f} tokens per session, on "
        f"{len(made_with['sessions'])} validation sessions of the study. The trial may have been "
        "chosen by this score, which flatters it then; `routedk search report` with `--data` "
        "measures it on the test split.",
        "",
        *_about_enhancement(settings, student, dtype, drawn),
        "| setting | value |",
        "|---|---|",
        *(
            f"| {name} | {shown_value(value)} |"
            for name, value in settings.to_dict().items()
            if value is not None
        ),
    ]
    if settings.neighbours:
        lines += ["", f"{PROGRAM} holds the training sessions that it shows as neighbours."]
    return "\n".join(lines) + "\n"


def _about_enhancement(
    settings: TrialSettings, student: str, dtype: str | None, drawn: Mapping[str, Any]
) -> list[str]:
    """What `routedk generate` does otherwise than the trial did, and the Python that does not."""
    if settings.enhancement == "greedy":
        return []
    module, name, call = _DRAWN[settings.enhancement]
    draws, seed = drawn.get("draws", 4), drawn.get("seed", 0)
    options = [repr(EXPERTS) if settings.use.trains else "None"]
    options += [] if student == "default" else [repr(student)]
    options += [] if dtype is None else [f"dtype={dtype!r}"]
    return [
        f"The trial's answers were chosen by **{settings.enhancement}** of {draws} draws. "
        "`routedk generate` takes the first answer, greedy, and does not reach this score by "
        "right. As the trial did:",
        "",
        "```python",
        "import dspy",
        "from routedk.adapters.engine.engine import student_lm",
        "from routedk.programs import load_program",
        f"from routedk.programs.{module} import {name}",
        "",
        f"lm = student_lm({', '.join(options)}).copy(seed={seed})",
        f'generator = load_program("{PROGRAM}")',
        f"program = {call.format(draws=draws)}",
        "with dspy.context(lm=lm):",
        "    prediction = program(session=session)",
        "```",
        "",
    ]
