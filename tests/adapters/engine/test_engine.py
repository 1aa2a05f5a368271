import asyncio
import threading

import dspy
import pytest
from dspy.utils.exceptions import LMError

from routedk.adapters.engine.engine import AsyncStudentEngine, StudentEngine
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.student import Student
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.types import Session
from tests.adapters.conftest import make_session
from tests.adapters.engine.conftest import CountingEngine, lm_of
from tests.forked import in_fork


@pytest.fixture
def many(sessions: list[Session]) -> list[Session]:
    """Twenty-four sessions that differ in items and their number."""
    titles = sorted({item.title for session in sessions for item in session.items})
    return [
        make_session(f"m{k}", [titles[(k + n) % len(titles)] for n in range(2 + k % 4)], [(1, 2)])
        for k in range(24)
    ]


@pytest.fixture(scope="module")
def known() -> dict[str, list[str]]:
    """Answers one by one, by answer form: computed once."""
    return {}


@pytest.fixture
def one_by_one(
    engine: CountingEngine, many: list[Session], known: dict[str, list[str]]
) -> list[str]:
    if engine.form not in known:
        with dspy.context(lm=lm_of(engine)):
            known[engine.form] = [BundleGenerator()(session=session).raw for session in many]
        assert [len(batch) for batch in engine.batches] == [1] * len(many)
        engine.batches.clear()
    return known[engine.form]


def test_threads_are_batched_and_answers_are_their_callers(
    engine: CountingEngine, many: list[Session], one_by_one: list[str]
) -> None:
    with dspy.context(lm=lm_of(engine)):
        answers = generate_all(BundleGenerator(), many, num_threads=16)
    assert [answer.raw for answer in answers] == one_by_one
    assert len(set(one_by_one)) > 5
    sizes = [len(batch) for batch in engine.batches]
    assert sum(sizes) == len(many)
    assert len(sizes) < len(many) / 2
    assert max(sizes) <= 16


def test_tasks_are_batched_and_some_are_cancelled(
    shared: RoutedStudent, many: list[Session]
) -> None:
    engine = CountingEngine(shared, form="item-intents", max_batch=8, max_queue=8)
    program = BundleGenerator()

    async def ask(number: int) -> str | None:
        task = asyncio.create_task(program.acall(session=many[number % len(many)]))
        if number % 5 == 2:
            await asyncio.sleep(0.002 * (number % 40))
            task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, asyncio.CancelledError):
            return None
        return str(outcome.raw)

    async def ask_all() -> list[str | None]:
        return list(await asyncio.gather(*map(ask, range(120))))

    with dspy.context(lm=lm_of(engine)):
        found = asyncio.run(ask_all())
        alone = [program(session=session).raw for session in many]
    for number, text in enumerate(found):
        assert text == alone[number % len(many)] or (text is None and number % 5 == 2)
    assert None in found
    engine.close()


def test_answers_are_of_their_form(engine: CountingEngine, sessions: list[Session]) -> None:
    with dspy.context(lm=lm_of(engine)):
        answer = BundleGenerator()(session=sessions[3])
    if engine.form == "item-intents":
        assert answer.raw.startswith("Thought: 1 ")
        assert all(f"; {number} " in answer.raw for number in range(2, 7 - 1))
    else:
        assert answer.raw == "none" or answer.raw[0].isdigit()
        assert answer.dropped == ()


def test_any_other_prompt_is_answered_freely(engine: CountingEngine) -> None:
    lm = lm_of(engine)
    assert lm("Hello", max_tokens=3) == lm("Hello", max_tokens=3)
    assert len(lm("Hello", n=3, temperature=1.0, max_tokens=3)) == 3
    assert all(job.grammar is None for batch in engine.batches for job in batch)


def test_length_usage_and_finish_reason(shared: RoutedStudent, sessions: list[Session]) -> None:
    engine = CountingEngine(shared, form="item-intents")
    lm = lm_of(engine)
    with dspy.context(lm=lm, track_usage=True):
        lm("Hello", max_tokens=2, temperature=0.0)
        BundleGenerator()(session=sessions[0])
    free, items = (record["usage"] for record in lm.history[-2:])
    assert free["completion_tokens"] <= 2
    prompts = [len(batch[0].prompt.ids) for batch in engine.batches]
    assert [free["prompt_tokens"], items["prompt_tokens"]] == prompts
    assert items["completion_tokens"] >= 3 * len(sessions[0].items)
    reasons = [record["response"].finish_reason for record in lm.history[-2:]]
    assert reasons[-1] == "stop", "an intent that is cut at its limit is no cut answer"
    assert reasons[0] == "length" or free["completion_tokens"] < 2
    engine.close()


def test_a_prompt_beyond_the_context_window(loaded: Student) -> None:
    engine = StudentEngine(loaded)
    lm, window = lm_of(engine), loaded.model.config.max_position_embeddings

    def tokens(words: int) -> int:
        return engine.prompt_tokens([{"role": "user", "content": "cup " * words}])

    fits = (window - 1 - tokens(1)) // (tokens(2) - tokens(1)) + 1
    assert lm("cup " * fits, max_tokens=window)
    assert lm.history[-1]["usage"]["completion_tokens"] <= window - tokens(fits)
    with pytest.raises(dspy.ContextWindowExceededError, match=f"context window has {window}"):
        lm("cup " * (fits + 1))
    with pytest.raises(dspy.ContextWindowExceededError):
        asyncio.run(lm.acall("cup " * (fits + 1)))
    with dspy.context(lm=lm):
        session = make_session("long", ["cup " * 10] * 500, [])
        assert "context window" in BundleGenerator()(session=session).error
    engine.close()


def test_a_cancelled_task_stops_its_completion(
    shared: RoutedStudent, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CountingEngine(shared)
    begun = threading.Event()
    hook = shared.student.model.lm_head.register_forward_hook(lambda *_: begun.set())

    async def ask() -> None:
        task = asyncio.create_task(lm_of(engine).acall("Hello", max_tokens=800))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    hook.remove()
    engine.close()
    assert engine.batches[0][0].future.cancelled()


def test_a_forked_process_has_a_worker_of_its_own(loaded: Student) -> None:
    lm = lm_of(StudentEngine(loaded))
    answer = lm("Hello", max_tokens=2)
    begun = threading.Event()

    def busy() -> None:
        begun.set()
        for _ in range(20):
            lm("Hello there", max_tokens=20)

    other = threading.Thread(target=busy)
    other.start()
    begun.wait()
    assert in_fork(lambda: lm("Hello", max_tokens=2)) == answer
    other.join()
    assert lm("Hello", max_tokens=2) == answer
    lm.engine.close()


def test_a_closed_engine(loaded: Student) -> None:
    engine = StudentEngine(loaded)
    lm = lm_of(engine)
    assert lm("Hello", max_tokens=2)
    asyncio.run(AsyncStudentEngine(engine).aclose())

    def refused() -> bool:
        with pytest.raises(LMError, match="the engine is closed"):
            lm("Hello")
        return True

    assert refused()
    assert in_fork(refused)
