"""Running a program over many sessions at once, so that a batching LM gets batches."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import dspy

from routedk.types import Session

_Value = TypeVar("_Value")
_Result = TypeVar("_Result")


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
        Exception: As `call_all`.
    """
    return call_all(lambda session: program(session=session), sessions, num_threads=num_threads)


def call_all(
    call: Callable[[_Value], _Result], values: Sequence[_Value], *, num_threads: int
) -> list[_Result]:
    """Call a function on every value, on threads under DSPy's context, results in their order.

    Args:
        call: What asks a language model.
        values: Its arguments.
        num_threads: Calls under way at once, at least 1.

    Raises:
        Exception: The first error of a call, as it was raised; the calls not yet begun are given
            up.
    """
    if not values:
        return []
    errors: list[Exception] = []

    def kept(value: _Value) -> tuple[_Result] | None:
        if errors:
            return None
        try:
            # In a tuple, since DSPy compares results, which arrays cannot be.
            return (call(value),)
        except Exception as error:
            # Kept and raised below: DSPy would log the whole value and raise something else.
            errors.append(error)
            return None

    # timeout=0: a slow call is never sent a second time.
    parallel = dspy.Parallel(
        num_threads=num_threads, max_errors=1, timeout=0, disable_progress_bar=True
    )
    results = list(parallel([(kept, {"value": value}) for value in values]))
    if errors:
        raise errors[0]
    return [result for (result,) in results]
