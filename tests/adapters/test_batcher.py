import threading
from collections.abc import Sequence

import pytest

from routedk.adapters.engine.batcher import Batcher, BatcherClosedError

seen: list[list[int]] = []


def double(jobs: Sequence[int]) -> list[int]:
    seen.append(list(jobs))
    return [2 * job for job in jobs]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    seen.clear()


def test_every_result_belongs_to_its_job() -> None:
    batcher = Batcher(double, lambda job: None, max_batch=7)
    futures = [batcher.submit(k) for k in range(50)]
    assert [future.result(10) for future in futures] == [2 * k for k in range(50)]
    assert sum(map(len, seen)) == 50
    assert max(map(len, seen)) == 7
    batcher.close()


def test_jobs_of_another_kind_wait_for_their_own_batch() -> None:
    batcher = Batcher(double, lambda job: job % 3, max_batch=4)
    futures = [batcher.submit(k) for k in range(24)]
    assert [future.result(10) for future in futures] == [2 * k for k in range(24)]
    assert all(len({job % 3 for job in jobs}) == 1 for jobs in seen)
    assert len(seen) < 24
    batcher.close()


def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    def fail(jobs: Sequence[int]) -> list[int]:
        if 0 in jobs:
            raise KeyError("broken")
        return double(jobs)

    batcher = Batcher(fail, lambda job: job % 2)
    futures = [batcher.submit(k) for k in range(4)]
    for k in (0, 2):
        with pytest.raises(KeyError, match="broken"):
            futures[k].result(10)
    assert [futures[k].result(10) for k in (1, 3)] == [2, 6]
    assert batcher.submit(5).result(10) == 10
    batcher.close()


def test_too_few_results_are_an_error() -> None:
    batcher = Batcher(lambda jobs: double(jobs)[:-1], lambda job: None)
    futures = [batcher.submit(k) for k in range(2)]
    with pytest.raises(ValueError, match="shorter"):
        futures[1].result(10)
    batcher.close()


def test_a_cancelled_job_is_not_run() -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(jobs: Sequence[int]) -> list[int]:
        begun.set()
        go.wait(10)
        return double(jobs)

    batcher = Batcher(slow, lambda job: job)
    first, second = batcher.submit(1), batcher.submit(2)
    assert begun.wait(10)
    assert second.cancel()
    go.set()
    assert first.result(10) == 2
    batcher.close()
    assert seen == [[1]]


def test_closing_finishes_what_is_queued() -> None:
    batcher = Batcher(double, lambda job: job % 5, max_batch=2)
    futures = [batcher.submit(k) for k in range(30)]
    batcher.close()
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [2 * k for k in range(30)]
    batcher.close()
    with pytest.raises(BatcherClosedError, match="the engine is closed"):
        batcher.submit(1)


def test_closing_before_anything_came() -> None:
    batcher = Batcher(double, lambda job: None)
    batcher.close()
    with pytest.raises(BatcherClosedError):
        batcher.submit(1)
