"""`report_search`: what a study found, as JSON and as one self-contained HTML page.

The test split, which a search never sees, is answered here.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from jinja2 import Environment, StrictUndefined
from optuna import visualization
from optuna.trial import FrozenTrial, TrialState

from routedk.adapters.train import TrainConfig
from routedk.artifacts import ArtifactStore
from routedk.errors import DataError, SettingError
from routedk.eval.bootstrap import bootstrap
from routedk.eval.evaluate import EvaluateConfig, evaluate
from routedk.eval.protocols import Score
from routedk.eval.report import versions
from routedk.eval.scoring import System
from routedk.files import atomic_write, read_json, read_text, write_json
from routedk.optimizers.search.config import ReportConfig
from routedk.optimizers.search.space import TrialSettings, in_words
from routedk.optimizers.search.storage import parse_url
from routedk.optimizers.search.study import read_study
from routedk.optimizers.search.trial import TrialRunner, runner_of
from routedk.types import Answer, Bundle, Session

logger = logging.getLogger(__name__)

REPORT = "report.json"
PAGE = "report.html"
# How many trials are scored on the test split.
_BEST = 3
# How many sessions are shown with their answers.
_EXAMPLES = 3


def report_search(
    output: str | Path,
    config: ReportConfig | None = None,
    *,
    parts: Mapping[Any, Sequence[Session]] | None = None,
    store: ArtifactStore | str | Path | None = None,
) -> dict[str, Any]:
    """Write ``report.json`` and a self-contained ``report.html``.

    The configuration is chosen on validation: the trial with the highest matched F1, and among
    equals the one with the fewest tokens. Given sessions, the best trials are scored on the test
    split, which no trial saw, with the baselines and, on request, the default configuration.

    Args:
        output: The folder; an earlier report in it is replaced.
        config: Settings; None for the defaults.
        parts: Training, validation and test sessions as returned by `split_sessions`, the first
            two as given to `search`; None to report on validation alone, keeping the test figures
            of an earlier report in the folder.
        store: The artifact store of the search or its folder; None for the one in the cache folder.

    Returns:
        What ``report.json`` holds.

    Raises:
        SettingError: There is no such study, the sessions are not the study's, or without them the
            test figures of an earlier report would be lost.
    """
    config = config or ReportConfig()
    study = read_study(config)
    best = best_trials(study)[:_BEST]
    tested = _earlier_test(Path(output) / REPORT, study, best) if parts is None else []
    if parts is not None and best:
        if both := {s.id for s in parts["test"]} & {s.id for s in (*parts["train"], *parts["val"])}:
            raise SettingError(f"test sessions are in other splits, too, e.g. {min(both)!r}")
        chosen = {f"trial {t.number}": TrialSettings(**t.user_attrs["settings"]) for t in best}
        if config.default:
            chosen["default configuration"] = default_settings()
        runner = runner_of(study, parts["train"], parts["val"], store)
        tested = retest(chosen, runner, parts["test"], parts["val"])
    trials = study.get_trials(deepcopy=False)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    record = {
        "study": study.study_name,
        "made_with": study.user_attrs,
        "trials": dict(Counter(trial.state.name.lower() for trial in trials)),
        "best": [_on_validation(trial) for trial in best],
        "front": [_on_validation(trial) for trial in study.best_trials],
        "test": tested,
        "failures": {trial.number: trial.user_attrs.get("failure") for trial in failed},
        "storage": str(parse_url(config.url)),
        "versions": {**versions(), "optuna": optuna.__version__},
    }
    write_json(Path(output) / REPORT, record)
    plots = plot_study(study) if best else {}
    write_page(Path(output) / PAGE, Path(__file__).with_name(PAGE), r=record, plots=plots)
    return record


def write_page(path: Path, template: Path, **values: Any) -> None:
    """Render a page; everything from data, settings or failure reasons is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["in_words"] = in_words
    with atomic_write(path) as file:
        file.write(environment.from_string(read_text(template)).render(**values))


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials with distinct settings, best on validation first.

    Args:
        study: As returned by `read_study`.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    complete.sort(key=lambda t: (-t.user_attrs["f1"], t.user_attrs["tokens"], t.number))
    found: dict[str, FrozenTrial] = {}
    for trial in complete:
        found.setdefault(in_words(trial.user_attrs["settings"]), trial)
    return list(found.values())


def _earlier_test(
    report: Path, study: optuna.Study, best: Sequence[FrozenTrial]
) -> list[dict[str, Any]]:
    """The test figures of an earlier report, if they are of the trial that is still the best.

    Raises:
        SettingError: They are of another trial or study.
    """
    earlier: Any = read_json(report) if report.is_file() else {}
    tested: list[dict[str, Any]] = earlier.get("test", [])
    same = earlier.get("made_with") == study.user_attrs and best
    if tested and not (same and tested[0]["name"] == f"trial {best[0].number}"):
        raise SettingError(
            f"{report} has figures of the test split for {tested[0]['name']} of "
            f"{earlier['study']}, which is not the best trial of {study.study_name} now: give "
            "--data to test that one, or another --output"
        )
    return tested


def _on_validation(trial: FrozenTrial) -> dict[str, Any]:
    kept = {name: trial.user_attrs[name] for name in ("settings", "f1", "tokens")}
    return {"trial": trial.number, **kept}


_F1, _TOKENS = "matched F1 on validation", "tokens per session"


def plot_study(study: optuna.Study) -> dict[str, str]:
    """Draw the plots as HTML, by title; the first one includes plotly itself.

    Args:
        study: As returned by `read_study`, with at least one complete trial.
    """
    figures: dict[str, Any] = {}
    with warnings.catch_warnings():
        # The title says that few trials tell little.
        warnings.simplefilter("ignore")
        figures["History"] = visualization.plot_optimization_history(
            study, target=_f1, target_name=_F1
        )
        if len(study.directions) == 2:
            names = [_F1, _TOKENS]
            figures["Pareto front"] = visualization.plot_pareto_front(study, target_names=names)
        # PED-ANOVA assumes that lower values are better.
        figures["Importances (PED-ANOVA; of few trials they are rough)"] = (
            visualization.plot_param_importances(
                study, target=lambda trial: -_f1(trial), target_name=_F1
            )
        )
        figures["Slices"] = visualization.plot_slice(study, target=_f1, target_name=_F1)
    return as_html(figures)


def as_html(figures: Mapping[str, Any]) -> dict[str, str]:
    """Plotly figures as HTML; the first one includes plotly itself."""
    return {
        title: figure.to_html(full_html=False, include_plotlyjs=place == 0)
        for place, (title, figure) in enumerate(figures.items())
    }


def _f1(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def default_settings() -> TrialSettings:
    """The trial settings that correspond to the defaults of `distill` and `train`."""
    training = TrainConfig()
    return TrialSettings(
        utilization="SFT",
        formats=("pattern", "rule", "thought"),
        experts=training.expert_names,
        fusion=training.fusion,
        r=training.r,
        learning_rate=training.learning_rate,
        epochs=training.epochs or 6.0,
    )


def retest(
    configurations: Mapping[str, TrialSettings],
    runner: TrialRunner,
    test: Sequence[Session],
    validation: Sequence[Session],
) -> list[dict[str, Any]]:
    """Score configurations and the baselines on the same test sessions.

    Args:
        configurations: Settings by name, the chosen ones first.
        runner: Builds what the store does not hold, and answers.
        test: Test sessions; those without gold are left out.
        validation: All validation sessions, on which the baselines' thresholds are chosen.

    Returns:
        A record for each, ready for JSON: its ``name``, ``settings``, scores as in a results file,
        ``tokens`` per session, and ``chosen_minus_this``: the first one's matched F1 minus this
        one's, the mean over sessions with a 95% interval. The first one also has ``examples`` of
        its answers.

    Raises:
        DataError: No test session has gold.
    """
    scored = [session for session in test if session.gold]
    seed = runner.config.seed
    systems: list[tuple[System, dict[str, Any]]] = []
    for name, settings in configurations.items():
        logger.info("on test: %s", name)
        with runner.answers(settings, scored) as given:
            answers = list(given)
        tokens = sum(answer.input_tokens + answer.output_tokens for answer in answers)
        (system,) = evaluate(scored, answers, EvaluateConfig(intents=False, seed=seed)).systems
        mine: dict[str, Any] = {"settings": settings.to_dict(), "tokens": tokens / len(scored)}
        if not systems:
            mine["examples"] = list(map(_example, scored[:_EXAMPLES], answers))
        systems.append((system, {"name": name, **mine}))
    config = EvaluateConfig(baselines=True, seed=seed)
    try:
        report = evaluate(scored, None, config, training=runner.train, validation=validation)
        systems += [(system, {"name": system.name}) for system in report.baselines]
    except DataError as error:
        logger.warning("the baselines are left out: %s", error)
    chosen = systems[0][0]
    return [
        {
            **mine,
            **system.to_dict(),
            "chosen_minus_this": paired_difference(chosen.session_f1, system.session_f1, seed),
        }
        for system, mine in systems
    ]


def _example(session: Session, answer: Answer) -> dict[str, Any]:
    """A session as titles, with gold and the program's answer."""

    def readable(bundles: Sequence[Bundle]) -> list[dict[str, Any]]:
        return [
            {"intent": one.intent, "titles": [session.item(item).title for item in one.item_ids]}
            for one in bundles
        ]

    return {
        "session_id": session.id,
        "titles": [item.title for item in session.items],
        "gold": readable(session.bundles or ()),
        "answer": readable(answer.bundles),
        "error": answer.error,
    }


def paired_difference(
    scores: Sequence[float], others: Sequence[float], seed: int
) -> dict[str, float]:
    """The mean difference of scores on the same sessions, with a 95% interval."""
    pairs = zip(scores, others, strict=True)
    (ahead,) = bootstrap([[Score(mine - theirs)] for mine, theirs in pairs], seed=seed)
    return asdict(ahead)
