"""One trial: settings from the space, answers to the validation sessions, their scores."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from statistics import fmean

from optuna import Trial, TrialPruned

from routedk.errors import RouteDKError, SettingError
from routedk.eval.matched import matched_f1
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.space import SearchSpace
from routedk.types import Answer, Session

Answering = Callable[[TrialSettings], Generator[Answer]]


class TrialFailure(RouteDKError, RuntimeError):
    """This trial cannot be carried out; others can. Its reason is recorded, the study continues."""


class Objective:
    """Scores a trial on validation sessions: mean matched F1, and tokens per session.

    A trial that any other error ends is queued again.

    It keeps as the trial's user attributes: ``settings``, then ``f1`` and ``tokens`` (the mean per
    session), or, where the trial fails for a reason of its own, ``failure``.

    Args:
        answer: Carries out settings: yields an answer per session, in their order. It is closed
            where a trial is pruned, so that nothing more is asked.
        space: Chooses the settings.
        sessions: Validation sessions with gold, at least one.
        single: Whether F1 is the only objective; only then can a trial be pruned.
    """

    def __init__(
        self,
        answer: Answering,
        space: SearchSpace,
        sessions: Sequence[Session],
        *,
        single: bool = False,
    ) -> None:
        self._answer = answer
        self._space = space
        self._sessions = sessions
        self._single = single

    def __call__(self, trial: Trial) -> float | tuple[float, float]:
        """Carry out one trial.

        Raises:
            TrialFailure: It failed for a reason of its own, which is recorded.
            TrialPruned: The pruner saw enough.
        """
        settings = self._space.suggest(trial)
        trial.set_user_attr("settings", settings.to_dict())
        try:
            return self._score(trial, settings)
        except TrialPruned:
            raise
        except BaseException as error:
            if reason := own_reason(error):
                trial.set_user_attr("failure", reason)
                raise TrialFailure(reason) from error
            # For whoever resumes the study.
            trial.study.enqueue_trial(trial.params)
            raise

    def _score(self, trial: Trial, settings: TrialSettings) -> float | tuple[float, float]:
        scores: list[float] = []
        spent = 0
        with closing(self._answer(settings)) as answers:
            for session, answer in zip(self._sessions, answers, strict=True):
                scores.append(matched_f1(session.gold, answer.items))
                spent += answer.input_tokens + answer.output_tokens
                if self._single and len(scores) < len(self._sessions):
                    self._prune(trial, scores)
        f1, tokens = fmean(scores), spent / len(scores)
        trial.set_user_attr("f1", f1)
        trial.set_user_attr("tokens", tokens)
        return f1 if self._single else (f1, tokens)

    def _prune(self, trial: Trial, scores: Sequence[float]) -> None:
        trial.report(scores[-1], len(scores) - 1)
        if trial.should_prune():
            # Samplers take the last reported value for the trial's.
            trial.report(fmean(scores), len(self._sessions))
            raise TrialPruned(f"after {len(scores)} of {len(self._sessions)} sessions")


def own_reason(error: BaseException) -> str | None:
    """Why a trial failed, if the reason is its own; None for an error that must stop the study.

    Its own are settings that do not work together, numbers that are no longer finite and memory
    that is used up, each on its way through ``dspy.LM`` as well. Everything else (a disk, a
    database, a language model) would fail every other trial alike.

    Args:
        error: What was raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TrialFailure | SettingError):
            return str(cause)
        if isinstance(cause, FloatingPointError):
            return f"not finite: {cause}"
        if isinstance(cause, _memory_errors()):
            return f"out of memory: {cause}".partition("\n")[0]
        cause = cause.__cause__
    return None


def _memory_errors() -> tuple[type[BaseException], ...]:
    torch = sys.modules.get("torch")
    return (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
