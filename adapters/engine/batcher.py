"""Requests from many threads and event loops, run in batches by one worker."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from routedk.errors import RouteDKError, SettingError
from routedk.forks import ForkLock

# Seconds without a new job after which a batch that is not full starts.
_WAIT = 0.02
# Seconds between checks by a task that waits for room.
_LOOK = 0.01


class EngineClosedError(RouteDKError, RuntimeError):
    """A request reached a closed engine."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A request in the batcher's queue.

    Args:
        future: Its result; canceled by a caller that no longer waits.
    """

    future: "Future[Any]" = field(default_factory=Future)


class Batcher:
    """Collects jobs for a moment and runs them together, in order of arrival.

    A forked process has a worker of its own.

    Args:
        run: Returns one result per job, in order; called from one thread only.
        max_batch: Maximum jobs in a batch, at least 1.
        max_queue: Maximum jobs in progress, at least 1; further ones wait.

    Raises:
        SettingError: A number is not allowed.
    """

    def __init__(
        self, run: Callable[[Sequence[Any]], Sequence[Any]], max_batch: int, max_queue: int
    ) -> None:
        if max_batch < 1 or max_queue < 1:
            raise SettingError(f"max_batch={max_batch}, max_queue={max_queue}: at least 1 each")
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._running = ForkLock()
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._room = threading.BoundedSemaphore(self._max_queue)
        self._waiting: SimpleQueue[Job] = SimpleQueue()
        self._worker = ThreadPoolExecutor(1, "routedk-engine")
        self._process = os.getpid()

    def submit(self, job: Job) -> "Future[Any]":
        """Queue a job; its future gets its result, or the error of its batch.

        Blocks the thread until there is room for the job.

        Raises:
            EngineClosedError: After `close`.
        """
        self._restart_in_fork()
        self._room.acquire()
        return self._queue(job)

    async def submit_async(self, job: Job) -> "Future[Any]":
        """Like `submit`, but only the task waits for room, not its event loop."""
        self._restart_in_fork()
        while not self._room.acquire(blocking=False):
            await asyncio.sleep(_LOOK)
        return self._queue(job)

    def _queue(self, job: Job) -> "Future[Any]":
        job.future.add_done_callback(lambda _: self._room.release())
        self._waiting.put(job)
        try:
            self._worker.submit(self._work)
        except RuntimeError:
            job.future.cancel()
            raise EngineClosedError("the engine is closed: make another with student_lm") from None
        return job.future

    def _restart_in_fork(self) -> None:
        """Restart the worker if this process is a fork, which has no copy of its thread."""
        if os.getpid() != self._process:
            with self._running:
                if os.getpid() != self._process and not self._closed:
                    self._start()

    def close(self) -> None:
        """Finish what is queued and stop; closing twice is harmless."""
        self._restart_in_fork()
        self._closed = True
        self._worker.shutdown()

    def _work(self) -> None:
        taken: list[Job] = []
        with suppress(Empty):
            taken.append(self._waiting.get_nowait())
            while len(taken) < self._max_batch:
                taken.append(self._waiting.get(timeout=_WAIT))
        batch = [job for job in taken if not job.future.cancelled()]
        try:
            with self._running:
                results = self._run(batch) if batch else []
        except BaseException as error:
            for job in batch:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(error)
        else:
            for job, result in zip(batch, results, strict=True):
                if job.future.set_running_or_notify_cancel():
                    job.future.set_result(result)
