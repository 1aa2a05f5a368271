"""Running a program over many sessions at once, so that a batching LM gets batches."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    errors: list[Exception] = []
    # Not dspy.Parallel: each makes a tqdm bar, though it is not shown, and of bars that sixteen
    # threads made at once one raised a KeyError.
    settings = dspy.settings.copy()

    def kept(value: _Value) -> tuple[_Result] | None:
        if errors:
            return None
        try:
            with dspy.context(**settings):
                return (call(value),)
        except Exception as error:
            errors.append(error)
            return None

    with ThreadPoolExecutor(num_threads) as threads:
        results = list(threads.map(kept, values))
    if errors:
        raise errors[0]
    return [result for (result,) in filter(None, results)]
