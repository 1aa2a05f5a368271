"""64 callers at once, 1,000 requests: every answer is its caller's."""

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from dspy.lm15 import Config, Message, Request, Response

from routedk.adapters.engine.engine import AsyncStudentEngine, StudentEngine
from routedk.adapters.experts.routed import RoutedStudent
from routedk.programs.prompting.layout import build_messages
from routedk.types import Session

from .conftest import make_session

CALLERS, REQUESTS = 64, 1000


@pytest.fixture(scope="module")
def engine(shared: RoutedStudent) -> Iterator[StudentEngine]:
    # Fewer places than callers: some of them always wait for room.
    found = StudentEngine(shared, form="item-intents", readings=1, max_batch=32, max_queue=48)
    yield found
    found.close()


@pytest.fixture(scope="module")
def requests(sessions: list[Session]) -> list[Request]:
    """Sessions greedy and by seeded draws, and questions without a session, of many lengths."""
    titles = sorted({item.title for session in sessions for item in session.items})
    made = []
    for k in range(40):
        count = 2 + k % 2 + (k % 10 == 0) * 4
        chosen = [titles[(k + n * n) % len(titles)] for n in range(count)]
        system, user = build_messages(make_session(f"c{k}", chosen, []))
        config = Config(temperature=1.2, seed=k) if k % 4 == 3 else Config()
        message = Message.user(user["content"])
        made.append(
            Request(model="m", system=system["content"], messages=(message,), config=config)
        )
    for k in range(20):
        text = " ".join(titles[: 1 + k % 7]) + "?" * (k // 7)
        config = Config(max_tokens=2 + k % 4, temperature=float(k % 2), seed=k)
        made.append(Request(model="m", messages=(Message.user(text),), config=config))
    return made


@pytest.fixture(scope="module")
def alone(engine: StudentEngine, requests: list[Request]) -> list[str]:
    """The answers one by one."""
    found = [text_of(engine.complete(request)) for request in requests]
    assert len(set(found)) > 40
    return found


def text_of(response: Response) -> str:
    return response.message.text or ""


def asked() -> list[int]:
    return [random.Random(k).randrange(60) for k in range(REQUESTS)]


def test_threads(engine: StudentEngine, requests: list[Request], alone: list[str]) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        found = list(pool.map(lambda k: text_of(engine.complete(requests[k])), asked()))
    assert found == [alone[k] for k in asked()]


def test_tasks_some_of_which_are_cancelled(
    engine: StudentEngine, requests: list[Request], alone: list[str]
) -> None:
    served = AsyncStudentEngine(engine)

    async def ask() -> list[str | None]:
        callers = asyncio.Semaphore(CALLERS)

        async def one(number: int, place: int) -> str | None:
            async with callers:
                if number % 20 == 7:
                    waits = asyncio.create_task(served.complete(requests[place]))
                    await asyncio.sleep(0.001 * (number % 50))
                    waits.cancel()
                    (outcome,) = await asyncio.gather(waits, return_exceptions=True)
                    return text_of(outcome) if isinstance(outcome, Response) else None
                return text_of(await served.complete(requests[place]))

        return list(await asyncio.gather(*(one(k, place) for k, place in enumerate(asked()))))

    found = asyncio.run(ask())
    assert len(found) == REQUESTS
    for number, (text, place) in enumerate(zip(found, asked(), strict=True)):
        assert text == alone[place] or (text is None and number % 20 == 7)
    assert any(text is None for text in found)
