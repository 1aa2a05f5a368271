"""`write_report`: what a study found, in figures, in pictures and on a page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from routedk.eval.report import versions
from routedk.files import write_json
from routedk.optimizers.search.drawing import draw_study
from routedk.optimizers.search.identity import IDENTITY
from routedk.optimizers.search.importance import (
    LEAST_TRIALS,
    Goal,
    best_share,
    flat_study,
    importances,
)
from routedk.optimizers.search.page import render_page
from routedk.optimizers.search.reading import complete_trials
from routedk.optimizers.search.retest import Tested
from routedk.optimizers.search.savings import savings

REPORT = "report.json"
PAGE = "report.html"


def write_report(
    study: optuna.Study,
    folder: Path,
    *,
    best: Sequence[FrozenTrial],
    tested: Sequence[Tested] = (),
    config: Mapping[str, Any] | None = None,
    dashboard: str = "",
    export: str = "",
) -> dict[str, Any]:
    """Write ``report.json``, PNGs and ``report.html``, which needs none of the others.

    Args:
        study: One that `read_study` gave.
        folder: Where they go; what an earlier report left under the same names is replaced.
        best: Its best trials on validation, the chosen one first, see `best_trials`.
        tested: What `retest` gave for them; empty where nobody asked.
        config: What the test rests on, ready for JSON.
        dashboard: The command that opens the study in optuna-dashboard.
        export: The command that writes the chosen trial as a program; empty where there is none.

    Returns:
        What ``report.json`` holds.
    """
    trials = study.get_trials(deepcopy=False)
    space = study.user_attrs[IDENTITY]["space"]
    flat = {goal: flat_study(trials, space, goal) for goal in _goals(study)}
    shares = {goal: importances(flat[goal]) for goal in flat}
    on_test = {one.trial: one.to_dict() for one in tested if one.trial is not None}
    record = {
        **_record(study, trials),
        "best": [{**_scored(trial), "test": on_test.get(trial.number)} for trial in best],
        "others_on_test": [one.to_dict() for one in tested if one.trial is None],
        "test": dict(config or {}) if tested else None,
        "importances": shares,
        "dashboard": dashboard,
        "export": export,
        "versions": {**versions(), "optuna": optuna.__version__},
    }
    write_json(folder / REPORT, record)
    render_page(record, draw_study(study, flat, shares, folder), folder / PAGE)
    return record


def _record(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """What the study alone says."""
    made_with, complete = study.user_attrs[IDENTITY], complete_trials(study)
    return {
        "study": study.study_name,
        "objective": made_with["objective"],
        "student": made_with.get("student"),
        "validation_sessions": len(made_with["sessions"]),
        "trials": _states(trials),
        "front": _front(study),
        "history": _history(complete),
        "best_share": best_share(len(complete)) if len(complete) >= LEAST_TRIALS else None,
        "failures": [_failure(trial, trials) for trial in trials if _failed(trial)],
        "store": savings(trials).to_dict(),
    }


def _goals(study: optuna.Study) -> list[Goal]:
    goals: list[Goal] = ["f1", "tokens"]
    return goals[: len(study.directions)]


def _scored(trial: FrozenTrial) -> dict[str, Any]:
    attrs = trial.user_attrs
    scores = {name: attrs[name] for name in ("f1", "tokens")}
    return {"trial": trial.number, "settings": attrs["settings"], "validation": scores}


def _states(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    found = Counter(trial.state for trial in trials)
    own = sum("failure" in trial.user_attrs for trial in trials if _failed(trial))
    return {
        "complete": found[TrialState.COMPLETE],
        "pruned": found[TrialState.PRUNED],
        "failed": own,
        "cut": found[TrialState.FAIL] - own,
        "under_way": found[TrialState.RUNNING] + found[TrialState.WAITING],
    }


def _failed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL


def _failure(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """A failed trial: its own reason, or that it was cut, and what tried it again."""
    number = trial.number
    again = [t.number for t in trials if number in t.system_attrs.get("retry_history", ())]
    return {
        "trial": number,
        "reason": trial.user_attrs.get("failure"),
        "settings": trial.user_attrs.get("settings"),
        "tried_again_as": min(again, default=None),
    }


def _front(study: optuna.Study) -> list[dict[str, Any]] | None:
    """The trials that none beats in both objectives, fewest tokens first; None for one."""
    if len(study.directions) == 1:
        return None
    found = sorted(study.best_trials, key=lambda t: (t.user_attrs["tokens"], t.number))
    return [_scored(trial) for trial in found]


def _history(complete: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    best = 0.0
    lines: list[dict[str, Any]] = []
    for trial in complete:
        best = max(best, trial.user_attrs["f1"])
        scores = {name: trial.user_attrs[name] for name in ("f1", "tokens")}
        lines.append({"trial": trial.number, **scores, "best_f1": best})
    return lines
