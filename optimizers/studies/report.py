"""What a study's systems reach, as JSON and as one HTML page that loads nothing."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState
from plotly import graph_objects

from routedk.errors import DataError
from routedk.eval.bootstrap import bootstrap
from routedk.eval.evaluate import EvaluateConfig, evaluate
from routedk.eval.protocols import Score
from routedk.eval.report import versions
from routedk.files import write_json
from routedk.optimizers.search.objective import FIGURES
from routedk.optimizers.search.report import as_html, paired_difference, write_page
from routedk.optimizers.search.trial import TrialRunner
from routedk.optimizers.studies.grid import Question, StudyGrid
from routedk.types import Answer, Session

if TYPE_CHECKING:
    from routedk.optimizers.studies.verb import PaperConfig

logger = logging.getLogger(__name__)

REPORT = "report.json"
PAGE = "report.html"


def write_study(
    output: str | Path,
    study: optuna.Study,
    grid: StudyGrid,
    config: "PaperConfig",
    runner: TrialRunner,
    test: Sequence[Session],
    reference: Sequence[Answer] | None,
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html`` of the systems that are complete.

    Args:
        output: The folder.
        study: Its trials are the systems.
        grid: What is compared.
        config: Of the study.
        runner: Its training and validation sessions are the baselines'.
        test: The sessions that systems answered.
        reference: The teacher's answers to them.

    Returns:
        What ``report.json`` holds.
    """
    systems: dict[str, dict[str, Any]] = {}
    failures: dict[str, str | None] = {}
    for trial in study.get_trials(deepcopy=False):
        name, found = trial.params.get("system", ""), trial.user_attrs
        if trial.state == TrialState.COMPLETE:
            figures = {figure: found[figure] for figure in FIGURES}
            systems.setdefault(name, {"settings": found["settings"], **figures})
        elif "failure" in found:
            failures[name] = found["failure"]
    # In the order of the grid, not in that of the trials.
    systems = {name: systems[name] for name in grid.chosen(config.budget) if name in systems}
    scores = {name: one["session_f1"] for name, one in systems.items()}
    scores |= _baselines(runner, test, reference, config.seed)
    record = {
        "title": grid.title,
        "study": study.study_name,
        "budget": {"name": config.budget, **grid.budget[config.budget].model_dump()},
        "made_with": study.user_attrs,
        "sessions": {
            "train": len(runner.train),
            "validation": len(runner.validation),
            "test": len(test),
        },
        "systems": [
            {"name": name, "matched_f1": _interval(mine, config.seed), **systems.get(name, {})}
            for name, mine in scores.items()
        ],
        "comparisons": [
            {
                "one": one,
                "other": other,
                "difference": paired_difference(scores[one], scores[other], config.seed),
            }
            for one, other in grid.compare
            if one in scores and other in scores
        ],
        "questions": [
            {**question.model_dump(), "series": _series(question, systems, config.seed)}
            for question in grid.questions
        ],
        "failures": failures,
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
    """Matched F1 of each session by the baselines and, first, the teacher."""
    config = EvaluateConfig(baselines=True, intents=False, seed=seed)
    known: dict[str, Any] = {"training": runner.train, "validation": runner.validation}
    try:
        report = evaluate(test, None, config, reference=reference, **known)
    except DataError as error:
        logger.warning("the baselines are left out: %s", error)
        return {}
    named = {"reference": "teacher"}
    return {named.get(one.name, one.name): one.session_f1 for one in report.baselines}


def _series(
    question: Question, systems: Mapping[str, dict[str, Any]], seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Of each line its points: mean matched F1 of all systems that a point stands for."""
    points: dict[str, dict[str, list[Sequence[float]]]] = {}
    for one in systems.values():
        for line in _values(question.by, one["settings"], systems):
            for level in _values(question.dimension, one["settings"], systems):
                points.setdefault(line, {}).setdefault(level, []).append(one["session_f1"])
    found: dict[str, list[dict[str, Any]]] = {}
    for line, levels in points.items():
        means = {
            level: [sum(mine) / len(mine) for mine in zip(*scores, strict=True)]
            for level, scores in levels.items()
        }
        first = next(iter(means.values()))
        found[line] = [
            {
                "level": level,
                "systems": len(levels[level]),
                "matched_f1": _interval(scores, seed),
                "minus_first": paired_difference(scores, first, seed),
            }
            for level, scores in means.items()
        ]
    return found


def _values(
    dimension: str, settings: Mapping[str, Any], systems: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    """The values of a dimension that a system has: with all sessions, every strategy's."""
    if dimension == "strategy" and settings["ratio"] == 1:
        yield from dict.fromkeys(one["settings"]["strategy"] for one in systems.values())
    else:
        value = settings[dimension]
        yield "+".join(value) if isinstance(value, list) else str(value)


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    axes = {"yaxis_title": "matched F1 on test (95%)", "template": "plotly_white"}
    for question in record["questions"]:
        figure = graph_objects.Figure()
        for line, points in question["series"].items():
            _draw(figure, line, [point["level"] for point in points], points)
        figures[question["title"]] = figure.update_layout(
            xaxis_title=question["dimension"], xaxis_type="category", **axes
        )
    costs = [one for one in record["systems"] if "tokens" in one]
    if costs and not record["questions"]:
        figure = graph_objects.Figure()
        for one in costs:
            _draw(figure, one["name"], [one["tokens"]], [one])
        figures["Quality and cost"] = figure.update_layout(xaxis_title="tokens per session", **axes)
    return figures


def _draw(
    figure: Any, name: str, places: Sequence[Any], points: Sequence[Mapping[str, Any]]
) -> None:
    found = [point["matched_f1"] for point in points]
    above = [one["high"] - one["value"] for one in found]
    below = [one["value"] - one["low"] for one in found]
    figure.add_scatter(
        x=places,
        y=[one["value"] for one in found],
        error_y={"type": "data", "array": above, "arrayminus": below},
        name=name,
        mode="lines+markers",
    )
