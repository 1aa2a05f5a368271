import asyncio
import threading
from collections.abc import Callable

from routedk.programs.batch import in_thread

PATIENCE = 30.0


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not done():
            await asyncio.sleep(0.01)


def test_work_in_threads_leaves_some_to_others() -> None:
    gate, started = threading.Event(), list[int]()

    def work(number: int) -> int:
        started.append(number)
        assert gate.wait(PATIENCE)
        return number

    async def run() -> tuple[list[int], int]:
        calls = [asyncio.ensure_future(in_thread(work, number)) for number in range(64)]
        try:
            await until(lambda: bool(started))
            other = await asyncio.wait_for(asyncio.to_thread(lambda: len(started)), PATIENCE)
        finally:
            gate.set()
        return await asyncio.gather(*calls), other

    answers, under_way = asyncio.run(run())
    assert answers == started == list(range(64))
    assert under_way <= 4


def test_who_leaves_takes_no_place_of_others_and_gives_none_away() -> None:
    gate, started = threading.Event(), list[str]()

    def work(name: str) -> str:
        started.append(name)
        assert gate.wait(PATIENCE)
        return name

    async def run() -> str:
        left = [asyncio.ensure_future(in_thread(work, "left")) for _ in range(8)]
        try:
            await until(lambda: len(started) == 4)
            for call in left:
                call.cancel()
            await asyncio.wait(left)
            stayed = asyncio.ensure_future(in_thread(work, "stayed"))
            await asyncio.sleep(0.05)
            assert started == ["left"] * 4
        finally:
            gate.set()
        return await stayed

    assert asyncio.run(run()) == "stayed"
    assert started == ["left"] * 4 + ["stayed"]
    assert asyncio.run(in_thread(work, "another loop")) == "another loop"
