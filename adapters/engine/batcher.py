"""Requests of many threads and event loops, run as batches by one worker."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from routedk.errors import RouteDKError, SettingError

# Seconds without a new job after which a batch that is not full starts.
_WAIT = 0.02
# Seconds after which a task that waits for room looks again.
_LOOK = 0.01


class EngineClosedError(RouteDKError, RuntimeError):
    """A request came to an engine that was closed, or in a fork of the process that made it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What is asked for.

    Args:
        future: Of its result; cancelled by a caller that no longer waits.
    """

    future: "Future[Any]" = field(default_factory=Future)


class Batcher:
    """Collects jobs for a moment and runs them together, in the order they came.

    Args:
        run: Gives one result per job, in their order; called from one thread only.
        max_batch: Most jobs in a batch, at least 1.
        max_queue: Most jobs under way, at least 1.

    Attributes:
        room: To be held while a job is under way: threads wait for it.

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
        self.room = threading.BoundedSemaphore(max_queue)
        self._waiting: deque[Job] = deque()
        self._arrived = threading.Event()
        self._worker = ThreadPoolExecutor(1, "routedk-engine")
        self._process = os.getpid()

    @asynccontextmanager
    async def room_for_task(self) -> AsyncIterator[None]:
        """Hold `room`; the task waits for it and not its event loop."""
        while not self.room.acquire(blocking=False):
            await asyncio.sleep(_LOOK)
        try:
            yield
        finally:
            self.room.release()

    def submit(self, job: Job) -> "Future[Any]":
        """Queue a job; its result, or the error of its batch, comes through its future.

        Raises:
            EngineClosedError: After `close`, or in a forked process.
        """
        self.check_process()
        self._waiting.append(job)
        self._arrived.set()
        try:
            self._worker.submit(self._work)
        except RuntimeError:
            raise EngineClosedError("the engine is closed: make another with student_lm") from None
        return job.future

    def check_process(self) -> None:
        """Check that this process has the worker, which a fork does not copy.

        Raises:
            EngineClosedError: It has not.
        """
        if os.getpid() != self._process:
            raise EngineClosedError(
                "this process was forked from the one that made the engine, which cannot be used "
                "here: make another with student_lm, or start processes by spawn"
            )

    def close(self) -> None:
        """Finish what is queued and stop; closing twice is harmless."""
        self.check_process()
        self._worker.shutdown()

    def _work(self) -> None:
        while 0 < len(self._waiting) < self._max_batch:
            self._arrived.clear()
            if not self._arrived.wait(_WAIT):
                break
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
        batch = [job for job in taken if not job.future.cancelled()]
        try:
            results = self._run(batch) if batch else []
        except BaseException as error:
            for job in batch:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(error)
        else:
            for job, result in zip(batch, results, strict=True):
                if job.future.set_running_or_notify_cancel():
                    job.future.set_result(result)
