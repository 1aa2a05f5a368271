"""Requests of many threads and tasks, run as batches by one worker."""

import asyncio
import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from routedk.errors import RouteDKError, SettingError

Job = TypeVar("Job")
Result = TypeVar("Result")

_LAST_WORDS = 5.0
_CLOSED = "the engine is closed: make another, e.g. with student_lm"


class BatcherClosedError(RouteDKError, RuntimeError):
    """A request came after the batcher was closed, or was still waiting for room then."""


@dataclass(eq=False)
class _Entry(Generic[Job, Result]):
    """A job, the future of its result, and the future of its place in the queue."""

    job: Job
    future: "Future[Result]" = field(default_factory=Future)
    admitted: "Future[None]" = field(default_factory=Future)


class Batcher(Generic[Job, Result]):
    """Collects jobs for a moment and runs those that fit together at once.

    The next batch always holds the oldest job, and with it jobs of the same kind, those of the
    nearest size first, as long as little of the batch is padding. So no job waits for more
    batches than there were jobs before it. The queue is bounded, and places in it are given in
    the order of asking: `submit` blocks a thread until there is room, `asubmit` suspends a task.
    A job whose future is cancelled before its batch starts is not run.

    Args:
        run: Gives one result per job, in their order; called from one thread only.
        kind: Jobs of equal kind may share a batch.
        size: What a job is padded in, e.g. its prompt's tokens; by default all are alike.
        max_batch: Most jobs in a batch, at least 1.
        max_queue: Most jobs that wait for their batch, at least 1.
        max_padding: Most of a batch that may be padding, in [0, 1).
        wait: Seconds without a new job after which a batch that is not full starts.

    Raises:
        SettingError: A value is not allowed.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Result]],
        kind: Callable[[Job], Hashable],
        *,
        size: Callable[[Job], int] = lambda job: 1,
        max_batch: int = 16,
        max_queue: int = 1024,
        max_padding: float = 0.5,
        wait: float = 0.02,
    ) -> None:
        if max_batch < 1 or max_queue < 1:
            raise SettingError(
                f"max_batch={max_batch}, max_queue={max_queue}: both must be at least 1"
            )
        if not 0 <= max_padding < 1:
            raise SettingError(f"max_padding={max_padding}: must be at least 0 and below 1")
        self._run = run
        self._kind = kind
        self._size = size
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_padding = max_padding
        self._wait = wait
        self._waiting: list[_Entry[Job, Result]] = []
        self._at_the_door: deque[_Entry[Job, Result]] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._closed = False

    def submit(self, job: Job) -> "Future[Result]":
        """Queue a job; its result or error comes through the future.

        Blocks while the queue is full. On an event loop use `asubmit`.

        Raises:
            BatcherClosedError: After `close`, or where it came while this waited for room.
        """
        entry = self._enter(job)
        try:
            entry.admitted.result()
        except BaseException:
            self._leave(entry)
            raise
        return entry.future

    async def asubmit(self, job: Job) -> "Future[Result]":
        """As `submit`, but a full queue suspends the task and not its event loop."""
        entry = self._enter(job)
        try:
            await asyncio.wrap_future(entry.admitted)
        except BaseException:
            self._leave(entry)
            raise
        return entry.future

    def close(self, *, finish: bool = True) -> None:
        """Stop the worker; closing twice is harmless.

        Args:
            finish: Whether what is queued is finished first, else its futures are cancelled. A
                batch under way is finished anyway; jobs still waiting for room are refused.
        """
        self._shut(finish)
        if self._worker is not None:
            self._worker.join()

    def _shut(self, finish: bool) -> None:
        with self._changed:
            self._closed = True
            refused = list(self._at_the_door)
            self._at_the_door.clear()
            given_up = [] if finish else self._waiting[:]
            self._changed.notify_all()
        atexit.unregister(self._at_exit)
        for entry in refused:
            if entry.admitted.set_running_or_notify_cancel():
                entry.admitted.set_exception(BatcherClosedError(_CLOSED))
        for entry in given_up:
            entry.future.cancel()

    def _at_exit(self) -> None:
        """The interpreter ends: nobody is left to read results, a stuck batch must not hold it."""
        self._shut(finish=False)
        if self._worker is not None:
            self._worker.join(_LAST_WORDS)

    def _enter(self, job: Job) -> _Entry[Job, Result]:
        entry: _Entry[Job, Result] = _Entry(job)
        with self._changed:
            if self._closed:
                raise BatcherClosedError(_CLOSED)
            if self._worker is None:
                # A daemon, so that a batch that never ends cannot keep the interpreter alive.
                self._worker = threading.Thread(target=self._work, name="batcher", daemon=True)
                self._worker.start()
                atexit.register(self._at_exit)
            self._at_the_door.append(entry)
            self._admit()
        return entry

    def _leave(self, entry: _Entry[Job, Result]) -> None:
        entry.admitted.cancel()
        entry.future.cancel()

    def _admit(self) -> None:
        """Let in whom there is room for, the first at the door first; under the lock."""
        while self._at_the_door and len(self._waiting) < self._max_queue:
            entry = self._at_the_door.popleft()
            if entry.admitted.set_running_or_notify_cancel():
                self._waiting.append(entry)
                entry.admitted.set_result(None)
                self._changed.notify_all()

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._answer([e for e in batch if e.future.set_running_or_notify_cancel()])

    def _next_batch(self) -> list[_Entry[Job, Result]] | None:
        """The jobs to be run now; None once the batcher is closed and nothing is left."""
        with self._changed:
            self._gather()
            waiting = [entry for entry in self._waiting if not entry.future.cancelled()]
            batch = self._fitting(waiting) if waiting else []
            taken = set(map(id, batch))
            self._waiting[:] = [entry for entry in waiting if id(entry) not in taken]
            self._admit()
            return None if self._closed and not batch else batch

    def _gather(self) -> None:
        """Wait for a first job, then until no more come or there are enough; under the lock."""
        while not self._waiting and not self._closed:
            self._changed.wait()
        enough = min(self._max_batch, self._max_queue)
        while len(self._waiting) < enough and not self._closed:
            count, until = len(self._waiting), time.monotonic() + self._wait
            while len(self._waiting) == count and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def _fitting(self, waiting: Sequence[_Entry[Job, Result]]) -> list[_Entry[Job, Result]]:
        """The oldest job and those that may share its batch, in the order they came."""
        oldest = waiting[0]
        kind, size = self._kind(oldest.job), self._size(oldest.job)
        others = [entry for entry in waiting[1:] if self._kind(entry.job) == kind]
        others.sort(key=lambda entry: abs(self._size(entry.job) - size))
        batch, total, longest = [oldest], size, size
        for entry in others[: self._max_batch - 1]:
            mine = self._size(entry.job)
            total, longest = total + mine, max(longest, mine)
            if total < (1 - self._max_padding) * longest * (len(batch) + 1):
                break
            batch.append(entry)
        chosen = set(map(id, batch))
        return [entry for entry in waiting if id(entry) in chosen]

    def _answer(self, batch: Sequence[_Entry[Job, Result]]) -> None:
        if not batch:
            return
        try:
            results = self._run([entry.job for entry in batch])
            for entry, result in zip(batch, results, strict=True):
                entry.future.set_result(result)
        except BaseException as error:  # reaches every caller through its future
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(error)
