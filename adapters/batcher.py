"""Requests of many threads, run as batches by one worker."""

import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from routedk.errors import RouteDKError

Job = TypeVar("Job")
Result = TypeVar("Result")


class BatcherClosedError(RouteDKError, RuntimeError):
    """A request came after the batcher was closed."""


@dataclass
class _Entry(Generic[Job, Result]):
    job: Job
    future: "Future[Result]" = field(default_factory=Future)


class Batcher(Generic[Job, Result]):
    """Collects jobs for a moment and runs those that fit together at once.

    Args:
        run: Gives one result per job, in their order; called from one thread only.
        kind: Jobs of equal kind may share a batch.
        max_batch: Most jobs in a batch.
        wait: Seconds without a new job after which a batch that is not full starts.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Result]],
        kind: Callable[[Job], Hashable],
        *,
        max_batch: int = 16,
        wait: float = 0.02,
    ) -> None:
        self._run = run
        self._kind = kind
        self._max_batch = max_batch
        self._wait = wait
        self._queue: queue.SimpleQueue[_Entry[Job, Result] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._closed = False

    def submit(self, job: Job) -> "Future[Result]":
        """Queue a job; its result or error comes through the future.

        Raises:
            BatcherClosedError: After `close`.
        """
        entry: _Entry[Job, Result] = _Entry(job)
        with self._lock:
            if self._closed:
                raise BatcherClosedError("the engine is closed")
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="batcher", daemon=True)
                self._worker.start()
            self._queue.put(entry)
        return entry.future

    def close(self) -> None:
        """Finish what is queued, then stop the worker; closing twice is harmless."""
        with self._lock:
            self._closed = True
            worker = self._worker
            self._queue.put(None)
        if worker is not None:
            worker.join()

    def _work(self) -> None:
        waiting: list[_Entry[Job, Result]] = []
        open_ = True
        while open_ or waiting:
            open_ = self._collect(waiting, block=open_ and not waiting) and open_
            if not waiting:
                continue
            kind = self._kind(waiting[0].job)
            batch = [e for e in waiting if self._kind(e.job) == kind][: self._max_batch]
            taken = set(map(id, batch))
            waiting = [e for e in waiting if id(e) not in taken]
            self._answer([e for e in batch if e.future.set_running_or_notify_cancel()])

    def _collect(self, waiting: list[_Entry[Job, Result]], *, block: bool) -> bool:
        """Move queued jobs to ``waiting``; false once the batcher is closed."""
        while True:
            try:
                full = len(waiting) >= self._max_batch
                entry = (
                    self._queue.get()
                    if block
                    else self._queue.get(timeout=0 if full else self._wait)
                )
            except queue.Empty:
                return True
            if entry is None:
                return False
            waiting.append(entry)
            block = False

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
