"""A language model whose answers are journaled: no call is lost, none is paid for twice."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.utils.exceptions import (
    AdapterParseError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    LMUnsupportedModelError,
)

from routedk.errors import AnswerError, SettingError
from routedk.programs.journal.budget import Budget, BudgetError, price
from routedk.programs.journal.engine import AsyncJournalEngine, JournalEngine
from routedk.programs.journal.journal import AnswerJournal, JournaledAnswer, Tally
from routedk.programs.journal.question import DrawCounter, NoAnswerError

__all__ = ["BudgetError", "JournaledLM", "Spent", "is_session_error", "journaled_lm"]

_OF_A_SESSION = (
    AnswerError,
    AdapterParseError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    NoAnswerError,
)
OnCall = Callable[[JournaledAnswer, bool], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a journaled language model has come to.

    Args:
        run: Calls made in this run.
        journal: All calls in the journal, those of earlier runs included.
        replayed: Questions of this run that were answered without a call of their own.
    """

    run: Tally
    journal: Tally
    replayed: int


class JournaledLM:
    """A journal with the ``dspy.LM`` that fills it; made by `journaled_lm`.

    ``lm`` takes the place of the given one in any program. A question that the journal answers
    is not asked again; the same question on many threads at once is asked once. A question is
    the model's name, messages and options; a ``rollout_id`` and the draws of ``n`` make questions
    of their own. ``journal`` is the `AnswerJournal`.
    """

    def __init__(
        self,
        lm: Any,
        path: str | Path,
        budget: Budget,
        on_call: OnCall | None,
    ) -> None:
        self._on_call = on_call
        self._run, self._replayed = Tally(), 0
        self._lock = Lock()
        _check_budget(budget, lm)
        self.journal = AnswerJournal(path)
        if budget.max_cost is not None and self.journal.total.unpriced:
            self.journal.close()
            raise _unknown_price(f"calls in {path}")
        engine = JournalEngine(lm, self.journal, budget, self._count)
        self.lm: Any = lm.copy(
            engine=engine,
            async_engine=AsyncJournalEngine(engine),
            cache=False,
            # The connection stays with the language model that is asked.
            **dict.fromkeys(CLIENT_KEYS & lm.kwargs.keys()),
        )
        self.lm.callbacks.append(DrawCounter())

    def __enter__(self) -> Self:
        """The journaled language model itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def spent(self) -> Spent:
        """Calls, tokens and cost so far."""
        with self._lock:
            return Spent(run=self._run, journal=self.journal.total, replayed=self._replayed)

    def close(self) -> None:
        """Close the journal; no call may be made afterwards."""
        self.journal.close()

    def _count(self, answer: JournaledAnswer, replayed: bool) -> None:
        with self._lock:
            if replayed:
                self._replayed += 1
            else:
                self._run = self._run.plus(answer)
        if self._on_call is not None:
            self._on_call(answer, replayed)


def journaled_lm(
    lm: Any,
    path: str | Path,
    *,
    budget: Budget | None = None,
    on_call: OnCall | None = None,
) -> JournaledLM:
    """Put a journal before a language model.

    With a budget, a call waits while calls under way could use up what is left, and raises
    `BudgetError` where it could do so alone; calls under way are finished and journaled. A call
    is held to come to at most a token per byte of its prompt and its ``max_tokens``. What a server
    bills for calls that fail is not known here.

    Args:
        lm: Any ``dspy.LM``; connection and retries stay its own, DSPy's cache is not used.
        path: The journal. Its answers are taken for those of any model of the same name,
            wherever that is served.
        budget: What the journal's calls may come to in all; None for anything.
        on_call: Told of each answer, on the thread that asked, and whether the journal had it.

    Raises:
        SettingError: The budget has ``max_cost`` and a price is not known, or the language model
            has no ``max_tokens`` to hold a budget with.
        DataError: The journal cannot be opened.
    """
    return JournaledLM(lm, path, budget or Budget(), on_call)


def is_session_error(error: BaseException) -> bool:
    """Whether what a program raised is one session's, and others may do better.

    An answer that is missing or cannot be read, and a request that the model refuses, such as
    one beyond its context window, are. A used-up budget, a refused key, an unknown model, a
    server that could not be reached or failed through all retries, a disk that cannot be written
    and anything unexpected are not: they would meet every session.
    """
    if isinstance(error, LMUnsupportedModelError):
        return False
    return isinstance(error, _OF_A_SESSION)


def _check_budget(budget: Budget, lm: Any) -> None:
    if budget.max_tokens is None and budget.max_cost is None:
        return
    if not (lm.kwargs.get("max_tokens") or lm.kwargs.get("max_completion_tokens")):
        raise SettingError("a budget needs a limit on answers: give the dspy.LM max_tokens")
    if budget.max_cost is None:
        return
    if not isinstance(lm.engine, str) or price(lm.model, 1, 1) is None:
        raise _unknown_price(lm.model)


def _unknown_price(what: str) -> SettingError:
    return SettingError(f"the price of {what} is not known: limit it by --max-tokens instead")
