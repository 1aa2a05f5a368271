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
        Exception: As for `call_all`.
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
        Exception: That of the first value whose call failed; calls not yet begun are canceled.
    """
    # Not dspy.Parallel: each makes a tqdm bar, though it is not shown, and of bars that sixteen
    # threads made at once one raised a KeyError.
    if len(values) == 1:
        return [call(values[0])]
    settings = dspy.settings.copy()

    def called(value: _Value) -> _Result:
        with dspy.context(**settings):
            return call(value)

    with ThreadPoolExecutor(num_threads) as threads:
        futures = [threads.submit(called, value) for value in values]
        try:
            return [future.result() for future in futures]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
