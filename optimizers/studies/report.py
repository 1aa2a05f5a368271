"""The results of a study's systems, as JSON and as one self-contained HTML page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import optuna
from optuna.trial import TrialState
from plotly import graph_objects

from routedk.errors import SettingError
from routedk.eval.bootstrap import bootstrap
from routedk.eval.evaluate import EvaluateConfig, evaluate
from routedk.eval.protocols import Score
from routedk.eval.report import versions
from routedk.files import write_json
from routedk.optimizers.search.objective import FIGURES
from routedk.optimizers.search.report import (
    PAGE,
    REPORT,
    as_html,
    paired_difference,
    write_page,
)
from routedk.optimizers.search.study import is_done
from routedk.optimizers.search.trial import TrialRunner
from routedk.optimizers.studies.grid import TEACHER, Dimension, Question, StudyGrid
from routedk.types import Answer, Session

if TYPE_CHECKING:
    from routedk.optimizers.studies.verb import PaperConfig


def write_study(
    output: str | Path,
    study: optuna.Study,
    grid: StudyGrid,
    config: "PaperConfig",
    runner: TrialRunner,
    test: Sequence[Session],
    reference: Sequence[Answer] | None,
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html`` for the systems that are complete.

    Args:
        output: The folder.
        study: The study, whose trials are the systems.
        grid: What is compared.
        config: The config of the study.
        runner: Has the training and validation sessions for the baselines.
        test: The sessions that systems answered.
        reference: The teacher's answers to them, if any.

    Returns:
        What ``report.json`` holds.

    Raises:
        SettingError: No system is complete.
    """
    found: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    for trial in study.get_trials(deepcopy=False):
        name, known = trial.params.get("system", ""), trial.user_attrs
        if trial.state == TrialState.COMPLETE:
            found[name] = {"settings": known["settings"]} | {k: known[k] for k in FIGURES}
        elif is_done(trial):
            failures[name] = known.get("failure", "its process was killed, again and again")
    if not found:
        raise SettingError(f"no system could be run: {'; '.join(sorted({*failures.values()}))}")
    # In the order of the grid, not of the trials.
    systems = {name: found[name] for name in grid.of(config.budget) if name in found}
    scores = {name: one["session_f1"] for name, one in systems.items()}
    scores |= _baselines(runner, test, reference, config.seed)
    gold = sum(bool(session.gold) for session in runner.train)
    most = grid.budget[config.budget].train
    sizes = {
        "train": gold if most is None else min(most, gold),
        "validation": len(runner.validation),
        "test": len(test),
    }
    record = {
        "title": grid.title,
        "study": study.study_name,
        "budget": config.budget,
        "made_with": study.user_attrs,
        "sessions": sizes,
        "systems": [
            {"name": name, "matched_f1": _interval(mine, config.seed), **systems.get(name, {})}
            for name, mine in scores.items()
        ],
        "comparisons": [
            {
                "system": one,
                "minus": other,
                "difference": paired_difference(scores[one], scores[other], config.seed),
            }
            for one, other in grid.compare
            if one in scores and other in scores
        ],
        "questions": [
            {
                **question.model_dump(),
                "values": [*map(str, grid.values(config.budget, question.dimension))],
                "series": _series(question, grid, config, systems),
            }
            for question in grid.questions
        ],
        "failures": {name: why for name, why in failures.items() if name not in found},
        "versions": {**versions(), "optuna": optuna.__version__},
    }
    write_json(Path(output) / REPORT, record)
    plots = as_html(_figures(record))
    write_page(Path(output) / PAGE, Path(__file__).with_name(PAGE), r=record, plots=plots)
    return record


def _interval(scores: Sequence[float], seed: int) -> dict[str, float]:
    (found,) = bootstrap([[Score(score)] for score in scores], seed=seed)
    return asdict(found)


def _baselines(
    runner: TrialRunner, test: Sequence[Session], reference: Sequence[Answer] | None, seed: int
) -> dict[str, Sequence[float]]:
    """Matched F1 of each session, for the teacher, if given, and for the baselines."""
    config = EvaluateConfig(baselines=True, intents=False, seed=seed)
    known: dict[str, Any] = {"training": runner.train, "validation": runner.validation}
    report = evaluate(test, None, config, reference=reference, **known)
    named = {"reference": TEACHER}
    return {named.get(one.name, one.name): one.session_f1 for one in report.baselines}


def _series(
    question: Question, grid: StudyGrid, config: "PaperConfig", systems: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """The points of each line: mean matched F1 of the systems with a value of the dimension.

    The points of a line are comparable: a system counts only if each other point has one that
    differs from it in this dimension alone. A value with no such system, as where one failed, has
    no point.
    """
    point: dict[str, Any]
    found: dict[str, list[dict[str, Any]]] = {}
    rest = [name for name in get_args(Dimension) if name not in (question.dimension, question.by)]
    for line in grid.values(config.budget, question.by):
        by_value: dict[Any, dict[Any, Sequence[float]]] = {}
        for value in grid.values(config.budget, question.dimension):
            alike = {
                tuple(str(one["settings"][name]) for name in rest): one["session_f1"]
                for one in systems.values()
                if _has(one["settings"], question.by, line)
                and _has(one["settings"], question.dimension, value)
            }
            if alike:
                by_value[value] = alike
        for value, scores in _comparable(by_value).items():
            means = [sum(mine) / len(mine) for mine in zip(*scores, strict=True)]
            point = {"value": str(value), "systems": len(scores), "session_f1": means}
            found.setdefault(str(line), []).append(point)
    for points in found.values():
        first = points[0]
        for point in points:
            point["matched_f1"] = _interval(point["session_f1"], config.seed)
            point["minus"] = first["value"]
            pair = point["session_f1"], first["session_f1"]
            point["difference"] = paired_difference(*pair, config.seed)
    return found


def _comparable(
    by_value: Mapping[Any, Mapping[Any, Sequence[float]]],
) -> dict[Any, list[Sequence[float]]]:
    """The systems of each value that have a counterpart, by their other settings, at each other."""
    counts = Counter(chain.from_iterable(by_value.values()))
    most = max(counts, key=counts.__getitem__, default=None)
    kept = {value: alike for value, alike in by_value.items() if most in alike}
    common = [key for key in counts if all(key in alike for alike in kept.values())]
    return {value: [alike[key] for key in common] for value, alike in kept.items()}


def _has(settings: Mapping[str, Any], dimension: str, value: Any) -> bool:
    """Whether a system has a value; every strategy samples all sessions at a ratio of 1."""
    if dimension == "strategy" and settings["ratio"] == 1:
        return True
    found: str | float = settings[dimension]
    if dimension == "formats":
        found = "+".join(settings["formats"]) or "none"
    return bool(found == value)


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    layout = {
        "yaxis_title": "matched F1 (95%)",
        "template": "plotly_white",
        "margin": {"t": 20, "l": 50, "r": 10},
        "legend": {"orientation": "h", "y": -0.25},
    }
    for question in record["questions"]:
        figure = graph_objects.Figure()
        ordered = question["dimension"] == "ratio"
        for line, points in question["series"].items():
            values = [point["value"] for point in points]
            _draw(figure, line, values, points, "lines+markers" if ordered else "markers")
        axis = {"type": "category", "categoryarray": question["values"]}
        axis |= {"title": question["dimension"]}
        figures[question["title"]] = figure.update_layout(xaxis=axis, scattermode="group", **layout)
    if not record["questions"]:
        figure = graph_objects.Figure()
        for one in (one for one in record["systems"] if "tokens" in one):
            _draw(figure, one["name"], [one["tokens"]], [one], "markers")
        figures["Quality and cost"] = figure.update_layout(
            xaxis={"title": "tokens per session", "type": "log"}, **layout
        )
    return figures


def _draw(
    figure: Any,
    name: str,
    places: Sequence[Any],
    points: Sequence[Mapping[str, Any]],
    mode: str,
) -> None:
    found = [point["matched_f1"] for point in points]
    above = [one["high"] - one["value"] for one in found]
    below = [one["value"] - one["low"] for one in found]
    values = [one["value"] for one in found]
    bars = {"type": "data", "array": above, "arrayminus": below}
    figure.add_scatter(x=places, y=values, error_y=bars, name=name, mode=mode)
