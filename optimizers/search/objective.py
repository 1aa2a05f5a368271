"""One trial: its settings, its pipeline run, the score of every session."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, Protocol

from optuna import Trial, TrialPruned

from routedk.errors import SettingError
from routedk.eval.matched import matched_f1
from routedk.optimizers.search.failure import TrialFailure, own_reason
from routedk.optimizers.search.part_report import PartReport
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.space import SearchSpace
from routedk.types import Session

logger = logging.getLogger(__name__)

ObjectiveName = Literal["both", "f1"]
Direction = Literal["maximize", "minimize"]
DIRECTIONS: Mapping[str, tuple[Direction, ...]] = {
    "both": ("maximize", "minimize"),
    "f1": ("maximize",),
}


class PreparedTrial(Protocol):
    """What a trial's settings come to, ready to answer."""

    @property
    def parts(self) -> Sequence[PartReport]:
        """A report for every stage so far; answering may add to it."""
        ...


class TrialPipeline(Protocol):
    """Carries out a trial's settings."""

    def prepare(self, settings: TrialSettings) -> PreparedTrial:
        """Distil, train and compile what the settings say.

        Raises:
            TrialFailure: These settings do not work; others may.
        """
        ...

    def answers(
        self, prepared: Any, sessions: Sequence[Session]
    ) -> Iterable[tuple[Session, Mapping[str, Any], int]]:
        """Answer sessions one by one, in their order, so that a pruner can stop it.

        Args:
            prepared: What its own `prepare` made.
            sessions: With gold, which is not looked at.

        Returns:
            Each session, its line of a predictions file, and the tokens that were read and written
            for it.
        """
        ...


class Objective:
    """Scores a trial's settings on validation sessions: matched F1, and tokens per session.

    What it keeps as the trial's user attributes: ``settings``, and at its end ``f1``, ``tokens``
    (the mean per session), ``tokens_spent``, ``scores`` (per session, in the order of the study's
    sessions), ``parts``, ``seconds``, and ``failure`` where there is a reason.

    Args:
        pipeline: Carries out the settings.
        space: Chooses them.
        sessions: Validation sessions with gold, at least one; all trials see them in this order.
        objective: ``both``, or ``f1`` alone: only then trials can be pruned.
        report: What a pruner is told after each session: its ``score``, or the ``mean`` so far.

    Raises:
        SettingError: No session has gold, or a name is unknown.
    """

    def __init__(
        self,
        pipeline: TrialPipeline,
        space: SearchSpace,
        sessions: Sequence[Session],
        *,
        objective: ObjectiveName = "both",
        report: Literal["score", "mean"] = "score",
    ) -> None:
        if objective not in DIRECTIONS:
            raise SettingError(f"objective {objective!r}: allowed are {', '.join(DIRECTIONS)}")
        self.sessions = [session for session in sessions if session.gold]
        if not self.sessions:
            raise SettingError(
                "no validation session has gold: there is nothing to score trials on"
            )
        self.pipeline = pipeline
        self.space = space
        self.objective = objective
        self.report = report

    def __call__(self, trial: Trial) -> float | tuple[float, float]:
        """Carry out one trial.

        Raises:
            TrialFailure: For a reason of its own; it is recorded.
            TrialPruned: The pruner saw enough.
        """
        started = time.monotonic()
        settings = self.space.suggest(trial)
        trial.set_user_attr("settings", settings.to_dict())
        try:
            return self._run(trial, settings)
        except TrialPruned:
            raise
        except Exception as error:
            reason = own_reason(error)
            if reason is None:
                raise
            trial.set_user_attr("failure", reason)
            raise TrialFailure(reason) from error
        finally:
            trial.set_user_attr("seconds", round(time.monotonic() - started, 3))

    def _run(self, trial: Trial, settings: TrialSettings) -> float | tuple[float, float]:
        prepared = self.pipeline.prepare(settings)
        scores: list[float] = []
        spent = 0
        pruned = False
        try:
            for step, (score, tokens) in enumerate(self._scored(prepared)):
                scores.append(score)
                spent += tokens
                if self.objective == "f1" and step + 1 < len(self.sessions):
                    trial.report(score if self.report == "score" else _mean(scores), step)
                    if pruned := trial.should_prune():
                        break
        finally:
            trial.set_user_attr("tokens_spent", spent)
        f1, mean_tokens = _mean(scores), spent / len(scores)
        trial.set_user_attr("f1", f1)
        trial.set_user_attr("tokens", mean_tokens)
        trial.set_user_attr("scores", [round(score, 6) for score in scores])
        trial.set_user_attr("parts", [asdict(part) for part in prepared.parts])
        if pruned:
            # Samplers take the last value reported for the trial's: one session's would be chance.
            trial.report(f1, len(self.sessions))
            raise TrialPruned(f"after {len(scores)} of {len(self.sessions)} sessions")
        return f1 if self.objective == "f1" else (f1, mean_tokens)

    def _scored(self, prepared: PreparedTrial) -> Iterator[tuple[float, int]]:
        """The matched F1 and the tokens of each session."""
        answered = self.pipeline.answers(prepared, self.sessions)
        for wanted, (session, record, tokens) in zip(self.sessions, answered, strict=True):
            if session.id != wanted.id:
                raise RuntimeError(f"session {wanted.id!r} was asked for, {session.id!r} answered")
            found = [frozenset(bundle["items"]) for bundle in record["bundles"]]
            yield matched_f1(session.gold, found), tokens


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)
