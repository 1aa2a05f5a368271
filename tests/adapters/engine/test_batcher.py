"""The batcher's promises: batches, order, room, canceling, errors, and the end."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from routedk.adapters.engine.batcher import Batcher, EngineClosedError, Job


@dataclass(frozen=True, kw_only=True, eq=False)
class Number(Job):
    """A job with a number."""

    value: int


class Gate:
    """A `run` that blocks in its first batch until opened, and records all batches."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, jobs: Sequence[Number]) -> list[int]:
        self.begun.set()
        assert self.open.wait(30)
        self.batches.append([job.value for job in jobs])
        if any(job.value < 0 for job in jobs):
            raise KeyError("broken")
        return [2 * job.value for job in jobs]


def held(max_batch: int = 16, max_queue: int = 64) -> tuple[Gate, Batcher]:
    """A batcher whose worker is blocked in a batch with job 0."""
    gate = Gate()
    batcher = Batcher(gate, max_batch, max_queue)
    batcher.submit(Number(value=0))
    assert gate.begun.wait(30)
    return gate, batcher


def test_every_result_belongs_to_its_job_in_batches_in_order() -> None:
    gate, batcher = held(max_batch=7)
    futures = [batcher.submit(Number(value=k)) for k in range(50)]
    gate.open.set()
    assert [future.result(30) for future in futures] == [2 * k for k in range(50)]
    assert [k for batch in gate.batches[1:] for k in batch] == list(range(50))
    assert [len(batch) for batch in gate.batches[1:]] == [7] * 7 + [1]
    batcher.close()


def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    gate, batcher = held(max_batch=2)
    futures = [batcher.submit(Number(value=k)) for k in (1, -2, 3, 4)]
    gate.open.set()
    for future in futures[:2]:
        with pytest.raises(KeyError, match="broken"):
            future.result(30)
    assert [future.result(30) for future in futures[2:]] == [6, 8]
    batcher.close()


def test_a_cancelled_job_is_not_run() -> None:
    gate, batcher = held()
    first, second = (batcher.submit(Number(value=k)) for k in (1, 2))
    assert second.cancel()
    gate.open.set()
    assert first.result(30) == 2
    assert gate.batches == [[0], [1]]
    batcher.close()


def test_closing_finishes_what_is_queued() -> None:
    gate, batcher = held(max_batch=2)
    futures = [batcher.submit(Number(value=k)) for k in range(9)]
    gate.open.set()
    batcher.close()
    assert [future.result(0) for future in futures] == [2 * k for k in range(9)]
    batcher.close()
    with pytest.raises(EngineClosedError, match="the engine is closed: make another"):
        batcher.submit(Number(value=1))


def test_threads_wait_for_room() -> None:
    gate, batcher = held(max_queue=3)
    inside = threading.Semaphore(0)

    def ask(value: int) -> int:
        future = batcher.submit(Number(value=value))
        inside.release()
        found: int = future.result(30)
        return found

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(5)]
    for thread in threads:
        thread.start()
    assert inside.acquire(timeout=30)
    assert inside.acquire(timeout=30)
    assert not inside.acquire(timeout=0.1)
    gate.open.set()
    for thread in threads:
        thread.join(30)
    assert sorted(k for batch in gate.batches[1:] for k in batch) == list(range(5))
    batcher.close()


def test_tasks_wait_for_room_and_their_loop_does_not() -> None:
    gate, batcher = held(max_queue=3)
    inside: list[int] = []

    async def ask(value: int) -> int:
        future = await batcher.submit_async(Number(value=value))
        inside.append(value)
        found: int = await asyncio.wrap_future(future)
        return found

    async def ask_all() -> list[int | BaseException]:
        tasks = [asyncio.create_task(ask(k)) for k in range(6)]
        await asyncio.sleep(0.05)
        assert inside == [0, 1]
        tasks[5].cancel()
        gate.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    *found, cancelled = asyncio.run(ask_all())
    assert found == [0, 2, 4, 6, 8]
    assert isinstance(cancelled, asyncio.CancelledError)
    assert 5 not in inside
    assert [batcher.submit(Number(value=k)).result(30) for k in range(3)] == [0, 2, 4]
    batcher.close()


@pytest.mark.parametrize("last", ["", "batcher.close()"])
def test_the_interpreter_ends_with_a_batcher_running(last: str) -> None:
    program = f"""
        from routedk.adapters.engine.batcher import Batcher, Job

        batcher = Batcher(lambda jobs: jobs, 1, 1)
        futures = [batcher.submit(Job()) for _ in range(3)]
        {last or "pass"}
        print("last line")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("last line\n", "")
