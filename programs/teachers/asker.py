"""Ask a language model about each session; a failure for one session does not stop others."""

import logging
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Protocol, TypeVar

import dspy
from dspy.utils.exceptions import (
    AdapterParseError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    LMUnsupportedModelError,
)

from routedk.errors import AnswerError, RouteDKError
from routedk.programs.batch import call_all
from routedk.programs.journal.budget import BudgetError
from routedk.programs.journal.journaled_lm import NoAnswerError
from routedk.programs.teachers.config import OnStep
from routedk.programs.usage import Usage, metered

logger = logging.getLogger(__name__)


class Asked(Protocol):
    """The subject of a question: a session, or several of them."""

    @property
    def id(self) -> str:
        """Its name in messages."""


_Answer = TypeVar("_Answer")
_Asked = TypeVar("_Asked", bound=Asked)
_OF_A_SESSION = (
    AnswerError,
    AdapterParseError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    NoAnswerError,
)


class Asker:
    """Asks one language model about sessions, in threads.

    An error that concerns one session quarantines it. A call that could exceed the budget is not
    made, and the answers available without it are returned.

    Args:
        lm: The ``dspy.LM`` that is asked.
        threads: Maximum number of concurrent calls, at least 1.
        on_step: Called from any thread after each session of a step.

    Attributes:
        quarantined: Sessions left out of a step because it has no usable answer for them, each
            with ``session_id``, ``step`` and ``error``.
        dropped: Unused parts of usable answers, each with ``session_id`` and ``dropped``.
        stopped: Why calls were not made; empty if all were made.
        level: Level of the log messages about sessions that are left out.
    """

    def __init__(self, lm: Any, *, threads: int = 16, on_step: OnStep | None = None) -> None:
        self.lm = lm
        self.quarantined: list[dict[str, str]] = []
        self.dropped: list[dict[str, str]] = []
        self.stopped = ""
        self.level = logging.WARNING
        self._threads = threads
        self._on_step = on_step

    def ask(
        self, step: str, call: Callable[[_Asked], _Answer], sessions: Sequence[_Asked]
    ) -> list[tuple[_Asked, _Answer, Usage]]:
        """Ask about every session.

        Args:
            step: What is asked for: ``score``, ``rule``, ``thought`` or ``answer``.
            call: Asks about one session, with the LM of the surrounding ``dspy.context``.
            sessions: The sessions to ask about.

        Returns:
            Sessions with their answers and the usage of each, in the order of the sessions.

        Raises:
            RouteDKError: The language model refuses every session.
            LMError: It failed in a way that would affect every session.
        """
        done = count(1)
        failed: dict[str, Exception] = {}

        def one(session: _Asked) -> tuple[_Asked, _Answer, Usage] | None:
            try:
                with metered() as meter:
                    answer = call(session)
                return session, answer, meter.usage
            except BudgetError as error:
                # Other sessions may have their answers in the journal.
                self.stopped = str(error)
            except Exception as error:
                if not is_session_error(error):
                    raise
                failed[session.id] = error
            finally:
                if self._on_step is not None:
                    self._on_step(step, next(done), len(sessions))
            return None

        with dspy.context(lm=self.lm):
            answers = list(filter(None, call_all(one, sessions, num_threads=self._threads)))
        if self.stopped:
            logger.warning("not all calls for %ss were made: %s", step, self.stopped)
        told = {name: " ".join(str(failed[name]).split())[:300] for name in sorted(failed)}
        for name, why in told.items():
            logger.log(self.level, "session %s is left out of %ss: %s", name, step, why)
            self.quarantined.append({"session_id": name, "step": step, "error": why})
        refused = [name for name in told if not isinstance(failed[name], AnswerError)]
        if sessions and len(refused) == len(sessions):
            first = f"{refused[0]!r}: {told[refused[0]]}"
            raise RouteDKError(f"{step}s: all {len(sessions)} sessions failed, e.g. {first}")
        return answers


def is_session_error(error: BaseException) -> bool:
    """Whether an error concerns one session alone, so that others may succeed.

    A missing or unusable answer does, and so does a request that the model refuses, such as
    one beyond its context window. A rejected key, an unknown model, a server that is unreachable
    or fails through all retries, a disk that cannot be written and anything unexpected do not.
    """
    return isinstance(error, _OF_A_SESSION) and not isinstance(error, LMUnsupportedModelError)
