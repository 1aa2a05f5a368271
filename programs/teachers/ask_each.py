"""Asking a language model about each session: what fails for one session stops no other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

import dspy
from dspy.utils.exceptions import (
    AdapterParseError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    LMUnsupportedModelError,
)

from routedk.errors import AnswerError
from routedk.programs.batch import call_all
from routedk.programs.journal.budget import BudgetError
from routedk.programs.journal.journaled_lm import NoAnswerError
from routedk.programs.usage import Usage, metered
from routedk.types import Session

# Called with the name of a step, how many of its sessions are done, and how many there are.
OnStep: TypeAlias = Callable[[str, int, int], None]

_OF_A_SESSION = (
    AnswerError,
    AdapterParseError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    NoAnswerError,
)


@dataclass(kw_only=True)
class Asked:
    """What came of asking.

    Args:
        answers: Sessions, what was answered and what that cost, in the sessions' order.
        failed: Why a session has no answer, by session id.
        stopped: Why calls were not made; empty where all were.
    """

    answers: list[tuple[Session, Any, Usage]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str = ""


def ask_each(
    step: str,
    call: Callable[[Session], Any],
    sessions: Sequence[Session],
    lm: Any,
    *,
    threads: int,
    on_step: OnStep | None = None,
) -> Asked:
    """Ask a language model about every session, on threads.

    Args:
        step: Name of the step, for ``on_step``.
        call: Asks about one session.
        sessions: What it is asked about.
        lm: The ``dspy.LM`` that is asked.
        threads: Calls under way at once, at least 1.
        on_step: Called from any thread after each session.

    Raises:
        LMError: The language model failed in a way that would meet every session.
    """
    asked, done = Asked(), count(1)

    def one(session: Session) -> tuple[Session, Any, Usage] | None:
        try:
            with metered() as meter:
                answer = call(session)
            return session, answer, meter.usage
        except BudgetError as error:
            # Other sessions may have their answers in the journal.
            asked.stopped = str(error)
        except Exception as error:
            if not is_session_error(error):
                raise
            asked.failed[session.id] = " ".join(str(error).split())[:300]
        finally:
            if on_step is not None:
                on_step(step, next(done), len(sessions))
        return None

    with dspy.context(lm=lm):
        asked.answers = list(filter(None, call_all(one, sessions, num_threads=threads)))
    return asked


def is_session_error(error: BaseException) -> bool:
    """Whether an error concerns one session alone, so that others may succeed.

    An answer that is missing or cannot be read, and a request that the model refuses, such as
    one beyond its context window, do. A refused key, an unknown model, a server that could not be
    reached or failed through all retries, a disk that cannot be written and anything unexpected
    do not.
    """
    return isinstance(error, _OF_A_SESSION) and not isinstance(error, LMUnsupportedModelError)
