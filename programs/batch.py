"""Running a program over many sessions at once, so that a batching LM gets batches."""

from collections.abc import Callable, Sequence
from typing import Any

import dspy

from routedk.types import Session


def generate_all(
    program: Callable[..., Any], sessions: Sequence[Session], *, num_threads: int = 16
) -> list[Any]:
    """Call a program on every session, on threads, results in the sessions' order.

    The LM is that of the program or of the surrounding ``dspy.context(lm=...)``.

    Args:
        program: A `BundleGenerator`, or any program that takes ``session=``.
        sessions: What to answer.
        num_threads: Calls under way at once, at least 1.

    Returns:
        One prediction per session.

    Raises:
        Exception: The first error of the program or its LM, as it was raised; the calls not yet
            begun are given up.
    """
    if not sessions:
        return []
    errors: list[Exception] = []

    def call(session: Session) -> Any:
        if errors:
            return None
        try:
            return program(session=session)
        except Exception as error:
            # Kept and raised below: DSPy would log the whole session and raise something else.
            errors.append(error)
            return None

    # timeout=0: a slow call is never sent a second time.
    parallel = dspy.Parallel(
        num_threads=num_threads, max_errors=1, timeout=0, disable_progress_bar=True
    )
    answers = list(parallel([(call, {"session": session}) for session in sessions]))
    if errors:
        raise errors[0]
    return answers
