"""The batcher's promises: lengths, order, room, giving up, and the end."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence

import pytest

from routedk.adapters.engine.batcher import Batcher, BatcherClosedError
from routedk.errors import SettingError


class Gate:
    """A `run` that waits at its first batch until it is opened, and keeps all batches."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.begun.set()
        assert self.open.wait(30)
        self.batches.append(list(jobs))
        return [2 * job for job in jobs]


def held(gate: Gate, **settings: object) -> Batcher[int, int]:
    """A batcher whose worker is held in a batch of the job 0."""
    batcher = Batcher(gate, lambda job: job < 0, size=abs, **settings)  # type: ignore[arg-type]
    batcher.submit(0)
    assert gate.begun.wait(30)
    return batcher


def run_all(gate: Gate, batcher: Batcher[int, int]) -> list[list[int]]:
    gate.open.set()
    batcher.close()
    return gate.batches[1:]


def test_batches_are_of_like_length_and_hold_the_oldest() -> None:
    gate = Gate()
    batcher = held(gate, max_batch=3)
    for job in (100, 20, 102, 21, 101, 19, 500):
        batcher.submit(job)
    assert run_all(gate, batcher) == [[100, 102, 101], [20, 21, 19], [500]]


def test_little_of_a_batch_is_padding() -> None:
    gate = Gate()
    batcher = held(gate, max_batch=8, max_padding=0.5)
    for job in (10, 12, 11, 100):
        batcher.submit(job)
    assert run_all(gate, batcher) == [[10, 12, 11], [100]]
    gate = Gate()
    batcher = held(gate, max_batch=8, max_padding=0.9)
    for job in (10, 12, 11, 100):
        batcher.submit(job)
    assert run_all(gate, batcher) == [[10, 12, 11, 100]]


def test_no_job_waits_for_more_batches_than_there_were_jobs_before_it() -> None:
    gate = Gate()
    batcher = held(gate, max_batch=4)
    jobs = [(7 * k) % 90 + 1 for k in range(60)] + [-((5 * k) % 50 + 1) for k in range(20)]
    for job in jobs:
        batcher.submit(job)
    batches = run_all(gate, batcher)
    assert sorted(job for batch in batches for job in batch) == sorted(jobs)
    left = list(jobs)
    for batch in batches:
        assert batch[0] == left[0], "the oldest job is in the next batch"
        assert len({job < 0 for job in batch}) == 1
        for job in batch:
            left.remove(job)


def test_a_stream_of_like_jobs_does_not_starve_an_unlike_one() -> None:
    """A long job, and one of another kind, among short ones that keep coming."""
    batches: list[list[int]] = []
    begun, opened = threading.Event(), threading.Event()

    def run(jobs: Sequence[int]) -> list[int]:
        begun.set()
        assert opened.wait(30)
        batches.append(list(jobs))
        if len(batches) < 100:
            for _ in range(2):
                batcher.submit(1)
        return list(jobs)

    batcher: Batcher[int, int] = Batcher(run, lambda job: job < 0, size=abs, max_batch=2, wait=0)
    batcher.submit(1)
    assert begun.wait(30)
    # Two jobs came before the long one and three before the other: so many batches at most.
    futures = [batcher.submit(job) for job in (1, 1, 900, -1)]
    opened.set()
    assert [future.result(30) for future in futures] == [1, 1, 900, -1]
    batcher.close()
    waits = batches[1:]
    assert next(k for k, batch in enumerate(waits) if 900 in batch) <= 2
    assert next(k for k, batch in enumerate(waits) if -1 in batch) <= 3


def test_a_full_queue_blocks_threads_in_their_order() -> None:
    gate = Gate()
    batcher = held(gate, max_queue=2, max_batch=1)
    queued = [batcher.submit(job) for job in (1, 2)]
    arrived: list[int] = []

    def submit(job: int) -> None:
        future = batcher.submit(job)
        arrived.append(job)
        future.result(30)

    threads = [threading.Thread(target=submit, args=(job,)) for job in (3, 4, 5)]
    for count, thread in enumerate(threads, start=1):
        thread.start()
        while len(batcher._at_the_door) < count:
            pass
    assert arrived == []
    gate.open.set()
    for thread in threads:
        thread.join(30)
    assert [future.result(30) for future in queued] == [2, 4]
    batcher.close()
    assert gate.batches == [[0], [1], [2], [3], [4], [5]]


def test_a_full_queue_does_not_block_an_event_loop() -> None:
    async def ask() -> list[int]:
        gate = Gate()
        batcher = held(gate, max_queue=2, max_batch=2)
        tasks = [asyncio.create_task(batcher.asubmit(job)) for job in range(1, 9)]
        for _ in range(20):
            await asyncio.sleep(0)  # The loop runs on while six of them wait for room.
        assert sum(task.done() for task in tasks) == 2
        gate.open.set()
        futures = await asyncio.gather(*tasks)
        results = await asyncio.gather(*map(asyncio.wrap_future, futures))
        await asyncio.to_thread(batcher.close)
        return list(results)

    assert asyncio.run(ask()) == [2 * job for job in range(1, 9)]


def test_a_task_cancelled_at_the_door_leaves_no_job() -> None:
    async def ask() -> list[list[int]]:
        gate = Gate()
        batcher = held(gate, max_queue=1, max_batch=1)
        batcher.submit(1)
        waits = asyncio.create_task(batcher.asubmit(2))
        await asyncio.sleep(0.01)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        gate.open.set()
        await asyncio.to_thread(batcher.close)
        return gate.batches

    assert asyncio.run(ask()) == [[0], [1]]


def test_cancelled_jobs_make_room() -> None:
    gate = Gate()
    batcher = held(gate, max_queue=2, max_batch=1)
    given_up = [batcher.submit(1), batcher.submit(2)]
    assert all(future.cancel() for future in given_up)
    gate.open.set()
    assert batcher.submit(3).result(30) == 6
    batcher.close()
    assert gate.batches == [[0], [3]]


def test_closing_refuses_who_waits_for_room_and_finishes_the_rest() -> None:
    gate = Gate()
    batcher = held(gate, max_queue=1)
    queued = batcher.submit(1)
    refused: list[str] = []

    def submit() -> None:
        try:
            batcher.submit(2)
        except BatcherClosedError as error:
            refused.append(str(error))

    waits = threading.Thread(target=submit)
    waits.start()
    while not batcher._at_the_door:
        pass
    closer = threading.Thread(target=batcher.close)
    closer.start()
    waits.join(30)
    assert refused == ["the engine is closed: make another, e.g. with student_lm"]
    gate.open.set()
    closer.join(30)
    assert queued.result(0) == 2


def test_closing_without_finishing_cancels_what_is_queued() -> None:
    gate = Gate()
    batcher = held(gate)
    queued = [batcher.submit(job) for job in (1, 2)]
    closer = threading.Thread(target=batcher.close, kwargs={"finish": False})
    closer.start()
    while not batcher._closed:
        pass
    gate.open.set()
    closer.join(30)
    assert all(future.cancelled() for future in queued)
    assert gate.batches == [[0]]


@pytest.mark.parametrize("last", ["", "go.set()", "batcher.close(); batcher.close()"])
def test_the_interpreter_ends_with_a_batcher_running(last: str) -> None:
    program = f"""
        import threading
        from routedk.adapters.engine.batcher import Batcher
        import routedk.adapters.engine.batcher as module
        module._LAST_WORDS = 0.1
        begun, go = threading.Event(), threading.Event()

        def run(jobs):
            begun.set()
            {"pass" if "close" in last else "go.wait()"}
            return jobs

        batcher = Batcher(run, lambda job: job, max_batch=1)
        futures = [batcher.submit(job) for job in range(3)]
        begun.wait()
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
    assert done.stdout == "last line\n"
    assert done.stderr == ""


def test_settings() -> None:
    for settings in ({"max_batch": 0}, {"max_queue": 0}):
        with pytest.raises(SettingError, match="both must be at least 1"):
            Batcher(list, lambda job: job, **settings)
    with pytest.raises(SettingError, match="max_padding=1: must be at least 0 and below 1"):
        Batcher(list, lambda job: job, max_padding=1)
