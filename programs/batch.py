"""Run a program over many sessions at once, so that a batching LM gets batches."""

import asyncio
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import dspy

from routedk.types import Session

_Value = TypeVar("_Value")
_Result = TypeVar("_Result")
# Values taken per thread: while the first result is pending, others are computed.
_AHEAD = 2
# An event loop's executor has at least five threads, and DSPy runs part of each call in them.
_IN_THREADS = 4
_room: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def generate_all(
    program: Callable[..., Any], sessions: Sequence[Session], *, num_threads: int = 16
) -> list[Any]:
    """Call a program on every session, in threads; results are in the order of the sessions.

    The LM is the program's own or that of the surrounding ``dspy.context(lm=...)``.

    Args:
        program: A `BundleGenerator`, or any program that takes ``session=``.
        sessions: The sessions to answer.
        num_threads: Maximum number of concurrent calls, at least 1.

    Returns:
        One prediction per session.

    Raises:
        Exception: As for `call_all`.
    """

    def call(session: Session) -> Any:
        # DSPy's trace would keep each call's predictor, and with it a student, forever.
        with dspy.context(trace=None):
            return program(session=session)

    return call_all(call, sessions, num_threads=num_threads)


def call_all(
    call: Callable[[_Value], _Result], values: Sequence[_Value], *, num_threads: int
) -> list[_Result]:
    """Call a function on every value, in threads with DSPy's context; results keep their order.

    Args:
        call: Asks a language model.
        values: Its arguments.
        num_threads: Maximum number of concurrent calls, at least 1.

    Raises:
        Exception: That of the first value whose call failed; calls not yet started are canceled.
    """
    if len(values) == 1:
        return [call(values[0])]
    return list(call_each(call, values, num_threads=num_threads))


def call_each(
    call: Callable[[_Value], _Result], values: Iterable[_Value], *, num_threads: int = 16
) -> Generator[_Result]:
    """As `call_all`, but values may be endless, and each result is yielded once it is available.

    Values are taken in a separate thread, so that results do not wait for the next value, e.g.
    from a pipe. Only as many are taken as keep the threads busy.

    Args:
        call: Asks a language model.
        values: Its arguments; iterating over them may block.
        num_threads: Maximum number of concurrent calls, at least 1.

    Raises:
        Exception: That of the first value whose call failed, or of the iterable of values, after
            the results before it; calls not yet started are canceled.
    """
    # Not dspy.Parallel: each one creates a tqdm bar, even if hidden, and when sixteen threads
    # created theirs at once, one raised a KeyError.
    settings = dspy.settings.copy()
    room = Semaphore(_AHEAD * num_threads)
    stopped = Event()
    under_way: SimpleQueue[Future[_Result] | None] = SimpleQueue()

    def called(value: _Value) -> _Result:
        with dspy.context(**settings):
            return call(value)

    def take(left: Iterator[_Value]) -> None:
        try:
            while room.acquire() and not stopped.is_set():
                under_way.put(threads.submit(called, next(left)))
        except StopIteration:
            under_way.put(None)
        except BaseException as error:
            failed: Future[_Result] = Future()
            failed.set_exception(error)
            under_way.put(failed)

    with ThreadPoolExecutor(num_threads) as threads:
        # A daemon: the next value may never come.
        Thread(target=take, args=(iter(values),), daemon=True).start()
        try:
            while (future := under_way.get()) is not None:
                yield future.result()
                room.release()
        finally:
            stopped.set()
            room.release()
            threads.shutdown(wait=False, cancel_futures=True)


async def in_thread(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """As `asyncio.to_thread`, but few at once, to leave the event loop's threads for others, too.

    A canceled caller does not wait; its slot is released when its work is done.

    Args:
        work: A function that computes and blocks.
        *arguments: Its arguments.
    """
    room = _room.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_IN_THREADS))
    await room.acquire()
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    running.add_done_callback(lambda _: room.release())
    return await asyncio.shield(running)
