"""One trial: settings from the space, answers to the validation sessions, their scores."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import fmean
from time import perf_counter
from typing import Any, Protocol

import psutil
from optuna import Trial, TrialPruned
from optuna.trial import BaseTrial, FrozenTrial, TrialState

from routedk.errors import RouteDKError, SettingError
from routedk.eval.protocols import matched_f1
from routedk.optimizers.search.space import TrialSettings, in_words
from routedk.types import Answer, Session

logger = logging.getLogger(__name__)

Answering = Callable[[TrialSettings], AbstractContextManager[Iterable[Answer]]]


class Space(Protocol):
    """The space that settings are chosen from."""

    def suggest(self, trial: BaseTrial) -> TrialSettings:
        """Choose a trial's settings."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The choices by name, ready for JSON."""


FIGURES = ("f1", "tokens", "session_f1", "seconds", "memory")
"""User attributes of a complete trial: mean matched F1, tokens per session, the matched F1 of each
session, answering time per session in seconds (almost none if the store holds the answers), and the
memory of the process afterwards in MiB."""


class TrialFailure(RouteDKError, RuntimeError):
    """This trial cannot be run, but others can. The reason is recorded and the study continues."""


def run_trial(
    trial: Trial, *, answer: Answering, space: Space, sessions: Sequence[Session]
) -> float | tuple[float, float]:
    """Run one trial and score it on validation sessions.

    Its user attributes hold ``settings``, then what `_measured` returns or, if the trial fails for
    a reason of its own, ``failure``. If any other error ends it, it is queued again. If a complete
    trial has the same settings, its figures are reused.

    Args:
        trial: The trial. It can be pruned if F1 is its study's only objective.
        answer: Applies settings: a context that gives one answer per session, in order. It is
            exited when a trial is pruned, so that nothing more is asked.
        space: Chooses the settings.
        sessions: Validation sessions with gold, at least one.

    Returns:
        The mean matched F1 and, where the study has two objectives, the tokens per session.

    Raises:
        TrialFailure: The trial failed for a reason of its own, which is recorded.
        TrialPruned: The pruner stopped the trial.
    """
    settings = space.suggest(trial)
    trial.set_user_attr("settings", settings.to_dict())
    single = len(trial.study.directions) == 1
    if (earlier := _equal_trial(trial, settings)) is not None:
        for place, score in earlier.intermediate_values.items():
            trial.report(score, place)
        return _recorded(trial, earlier.user_attrs)
    try:
        with answer(settings) as answers:
            measured = _measured(answers, sessions, trial if single else None)
    except TrialPruned as pruned:
        logger.info("trial %d pruned %s", trial.number, pruned)
        raise
    except BaseException as error:
        if reason := own_reason(error):
            logger.warning("trial %d failed: %s", trial.number, reason)
            trial.set_user_attr("failure", reason)
            raise TrialFailure(reason) from error
        # Whoever resumes the study runs it again.
        trial.study.enqueue_trial(trial.params)
        raise
    return _recorded(trial, measured)


def _equal_trial(trial: Trial, settings: TrialSettings) -> FrozenTrial | None:
    """A complete trial with the same settings, which would run the same way; None if none has."""
    complete = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    mine = settings.to_dict()
    return next((one for one in complete if one.user_attrs["settings"] == mine), None)


def _recorded(trial: Trial, found: Mapping[str, Any]) -> float | tuple[float, float]:
    for name in FIGURES:
        trial.set_user_attr(name, found.get(name))
    listed = "system" in trial.params
    settings = in_words(trial.params if listed else trial.user_attrs["settings"])
    done = trial.number, found["f1"], found["tokens"], settings
    logger.info("trial %d: matched F1 %.3f, %.0f tokens per session (%s)", *done)
    return found["f1"] if len(trial.study.directions) == 1 else (found["f1"], found["tokens"])


def _measured(
    answers: Iterable[Answer], sessions: Sequence[Session], pruned: Trial | None
) -> dict[str, Any]:
    """The ``FIGURES`` of answers; the trial ``pruned`` may end before the last session."""
    scores: list[float] = []
    spent = 0
    started = perf_counter()
    for session, answer in zip(sessions, answers, strict=True):
        scores.append(matched_f1(session.gold, answer.items))
        spent += answer.input_tokens + answer.output_tokens
        if pruned and len(scores) < len(sessions):
            pruned.report(scores[-1], len(scores) - 1)
            if pruned.should_prune():
                # Samplers use the last reported value as the trial's.
                pruned.report(fmean(scores), len(sessions))
                raise TrialPruned(f"after {len(scores)} of {len(sessions)} sessions")
    return {
        "f1": fmean(scores),
        "tokens": spent / len(scores),
        "session_f1": scores,
        "seconds": (perf_counter() - started) / len(scores),
        "memory": psutil.Process().memory_info().rss / 2**20,
    }


def own_reason(error: BaseException) -> str | None:
    """Why a trial failed, if the reason is its own; None for an error that must stop the study.

    Its own reasons are settings that do not work together, non-finite numbers and running out of
    memory, also when ``dspy.LM`` wraps the error. Everything else (a disk, a database, a language
    model) would fail all other trials, too.

    Args:
        error: The exception.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TrialFailure | SettingError):
            return str(cause)
        if isinstance(cause, FloatingPointError):
            return f"not finite: {cause}"
        # Compared by name: torch may not be loaded.
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return f"out of memory: {cause}".partition("\n")[0]
        cause = cause.__cause__
    return None
