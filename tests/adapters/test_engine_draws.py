"""Several completions of one request: one prompt computed, each completion with its own draw."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import dspy
import pytest
import torch

from routedk.adapters.engine.engine import StudentEngine
from routedk.adapters.engine.generation import Completion, Generator, Sampling
from routedk.adapters.engine.requests import apart
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import Student
from routedk.programs.consensus import Consensus
from routedk.programs.generator import BundleGenerator
from routedk.programs.prompting.layout import build_messages, render_items
from routedk.types import Session

from .conftest import CountingEngine, copy_of, lm_of

PROMPT = "Hello there"


@pytest.fixture
def rows(shared: RoutedStudent, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each forward pass over several tokens held."""
    seen: list[int] = []
    decoder = shared.student.model.model
    forward = decoder.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(decoder, "forward", counted)
    return seen


def test_n_completions_are_one_batch_and_one_row(engine: CountingEngine, rows: list[int]) -> None:
    lm = lm_of(engine)
    found = lm(PROMPT, n=6, temperature=1.5, seed=4, max_tokens=8)
    assert engine.sizes == [6]
    assert set(rows) == {1}
    assert len(found) == 6
    assert len(set(map(str, found))) > 1
    usage = lm.history[-1]["usage"]
    job = engine.job(request_of(lm))
    assert usage["prompt_tokens"] == len(job.prompt.ids), "the prompt is counted once"


def request_of(lm: dspy.LM) -> Any:
    from dspy.lm15 import Message, Request

    return Request(model=lm.model, messages=(Message.user(PROMPT),))


def test_the_first_of_n_is_the_one_alone(engine: CountingEngine) -> None:
    lm = lm_of(engine)
    options = {"temperature": 1.5, "seed": 11, "max_tokens": 8}
    several = lm(PROMPT, n=3, **options)
    assert several[0] == lm(PROMPT, **options)[0]
    assert several == lm.copy(n=3)(PROMPT, **options)


def test_n_greedy_completions_are_alike(engine: CountingEngine) -> None:
    found = lm_of(engine)(PROMPT, n=3, max_tokens=6)
    assert len(found) == 3
    assert len(set(map(str, found))) == 1


def test_n_completions_asynchronously(engine: CountingEngine) -> None:
    lm = lm_of(engine)
    options = {"n": 4, "temperature": 1.5, "seed": 5, "max_tokens": 8}
    together = lm(PROMPT, **options)

    async def ask() -> Any:
        return await asyncio.gather(*(lm.acall(PROMPT, **options) for _ in range(3)))

    assert asyncio.run(ask()) == [together] * 3
    assert sum(engine.sizes) == 16


def test_in_lower_precision_the_draws_of_a_request_are_a_batch_of_their_own(
    loaded: Student,
) -> None:
    student = copy_of(loaded)
    student.model.to(torch.bfloat16)
    engine = CountingEngine(student)
    lm = lm_of(engine)
    options = {"n": 4, "temperature": 1.5, "seed": 5, "max_tokens": 8}
    together = lm(PROMPT, **options)
    assert engine.sizes == [1]
    assert len(set(map(str, together))) > 1

    async def ask() -> Any:
        others = (lm.acall("Another prompt", **options) for _ in range(3))
        return await asyncio.gather(lm.acall(PROMPT, **options), *others)

    assert asyncio.run(ask())[0] == together
    assert engine.sizes == [1] * 5

    async def read_among_others() -> None:
        prompts = [PROMPT, *(f"{PROMPT} {'again ' * k}" for k in range(8))]
        await asyncio.gather(*(lm.acall(prompt, max_tokens=2) for prompt in prompts))

    asyncio.run(read_among_others())
    assert engine.generator.prefixes.bytes > 0
    assert lm(PROMPT, **options) == together, "whatever was read before"
    engine.close()
    small = CountingEngine(student, max_batch=3)
    assert len(lm_of(small)(PROMPT, **options)) == 4
    assert small.sizes == [1, 1], "three, then one"
    small.close()


def test_completions_that_nobody_waits_for_are_taken_off_the_queue() -> None:
    together: Future[Sequence[Completion]] = Future()
    first, second = apart(together, 2)
    first.cancel()
    assert not together.cancelled()
    second.cancel()
    assert together.cancelled()


def test_completions_written_together_share_their_fate() -> None:
    together: Future[Sequence[Completion]] = Future()
    first, second, third = apart(together, 3)
    third.cancel()
    together.set_result([Completion(text, 1, True) for text in "abc"])
    assert [first.result().text, second.result().text] == ["a", "b"]
    failed: Future[Sequence[Completion]] = Future()
    parts = apart(failed, 2)
    failed.set_exception(RuntimeError("out of memory"))
    assert [str(part.exception()) for part in parts] == ["out of memory"] * 2


def test_an_error_leaves_nothing_behind(
    engine: CountingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspy.utils.exceptions import LMError

    lm = lm_of(engine)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.generator, "_write", fail)
    with pytest.raises(LMError, match="out of memory"):
        lm(PROMPT, n=3, temperature=1.0)
    monkeypatch.undo()
    assert len(lm(PROMPT, n=2, temperature=1.0, max_tokens=4)) == 2
    assert len(lm(PROMPT, max_tokens=4)) == 1
    assert engine.sizes[-2:] == [2, 1]


def test_requests_of_one_prompt_share_its_row(
    shared: RoutedStudent, sessions: list[Session], rows: list[int]
) -> None:
    generator = Generator(shared)
    session = sessions[3]
    prompt = encode_prompt(
        shared.tokenizer, build_messages(session), render_items(session).split("\n")
    )
    other = encode_prompt(
        shared.tokenizer, build_messages(sessions[1]), render_items(sessions[1]).split("\n")
    )
    hot = [Sampling(temperature=1.5, seed=seed) for seed in (1, 2, 3)]
    sizes = [len(session.items)] * 3
    alone = [generator.bundles([prompt], sizes[:1], mine)[0] for mine in hot]
    rows.clear()
    mixed = generator.bundles([prompt, other, prompt, prompt], [*sizes, sizes[0]], [hot[0], *hot])
    assert max(rows) == 2
    assert [mixed[k].text for k in (0, 2, 3)] == [alone[0].text, alone[1].text, alone[2].text]
    greedy = Sampling()
    items = render_items(session).split("\n")
    single = generator.item_lines([prompt], [items], readings=3)[0]
    both = generator.item_lines(
        [prompt] * 3, [items] * 3, [greedy, hot[0], hot[1]], readings=[3, 1, 1]
    )
    assert both[0] == single
    assert [len(lines[0]) for lines in both] == [3, 1, 1]
    assert both[1] == generator.item_lines([prompt], [items], hot[0])[0]


def test_consensus_is_one_batch(
    engine: CountingEngine, sessions: list[Session], rows: list[int]
) -> None:
    engine._batcher._wait = 1.0  # Both requests surely meet.
    with dspy.context(lm=lm_of(engine)):
        greedy = BundleGenerator()(session=sessions[3])
        engine.sizes.clear()
        rows.clear()
        prediction = Consensus(BundleGenerator(), n=8, temperature=1.0)(session=sessions[3])
    assert engine.sizes == [8]
    assert set(rows) == {1}
    assert len(prediction.answers) == 8
    assert prediction.answers[0].raw == greedy.raw
    assert len({answer.raw for answer in prediction.answers}) > 2
    assert prediction.calls == 2


def test_a_caller_that_leaves_stops_the_writing(shared: RoutedStudent) -> None:
    """The prompt's answer is under way when its task is cancelled: no further token of it."""
    engine = StudentEngine(shared)
    begun, go = threading.Event(), threading.Event()
    steps: list[int] = []
    write = engine.generator._write

    def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go.wait(30)
        found = write(*args, **kwargs)
        steps.extend(len(branch.written) for stems in found for stem in stems for branch in stem)
        return found

    engine.generator._write = slow  # type: ignore[method-assign]

    async def ask() -> None:
        task = asyncio.create_task(lm_of(engine).acall(PROMPT, max_tokens=50))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await asyncio.to_thread(engine.close)

    asyncio.run(ask())
    assert steps == [1]
