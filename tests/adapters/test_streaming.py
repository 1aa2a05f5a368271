"""Answers through dspy.streamify, as they are written."""

import asyncio
from typing import Any

import dspy
import pytest

from routedk.adapters.engine.engine import StudentEngine
from routedk.adapters.engine.streaming import TextStream
from routedk.programs.generator import BundleGenerator
from routedk.types import Session

from .conftest import lm_of


def pieces_of(values: list[Any]) -> list[str]:
    chunks = [value for value in values if not isinstance(value, dspy.Prediction)]
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    return [text for text in texts if text]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_answer_comes_in_pieces(
    engine: StudentEngine, sessions: list[Session], asynchronous: bool
) -> None:
    session = sessions[5]
    with dspy.context(lm=lm_of(engine)):
        whole = BundleGenerator()(session=session)
        program = dspy.streamify(BundleGenerator(), is_async_program=asynchronous)

        async def consume() -> list[Any]:
            return [value async for value in program(session=session)]

        values = asyncio.run(consume())
    pieces = pieces_of(values)
    assert "".join(pieces) == whole.raw
    assert len(pieces) > 2
    assert values[-1].raw == whole.raw
    if engine.form == "item-intents":
        assert len(pieces) <= len(session.items)
        assert all(piece.startswith("; ") for piece in pieces[1:])


def test_a_stream_that_is_no_longer_read_is_given_up(
    engine: StudentEngine, sessions: list[Session]
) -> None:
    jobs: list[Any] = []
    make = engine.job

    def kept(*args: Any, **kwargs: Any) -> Any:
        jobs.append(make(*args, **kwargs))
        return jobs[-1]

    engine.job = kept  # type: ignore[method-assign]
    with dspy.context(lm=lm_of(engine)):
        program = dspy.streamify(BundleGenerator(), is_async_program=True)

        async def leave() -> None:
            stream = program(session=sessions[5])
            async for _ in stream:
                break
            await stream.aclose()

        asyncio.run(leave())
    (job,) = jobs
    assert job.given_up.is_set()
    with dspy.context(lm=lm_of(engine)):
        assert BundleGenerator()(session=sessions[0]).raw


def test_a_failing_model_ends_the_stream(
    engine: StudentEngine, sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspy.utils.exceptions import LMError

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.generator, "_write", fail)
    with dspy.context(lm=lm_of(engine)):
        program = dspy.streamify(BundleGenerator(), is_async_program=True)

        async def consume() -> None:
            async for _ in program(session=sessions[0]):
                pass

        with pytest.raises(LMError, match="out of memory"):
            asyncio.run(consume())


def test_several_completions_can_be_streamed(engine: StudentEngine) -> None:
    from dspy.lm15 import Message, Request

    lm = lm_of(engine)
    request = Request(model=lm.model, messages=(Message.user("Hello"),))
    first, *_, last = engine.stream(request)
    assert (first.type, last.type) == ("start", "end")
    assert last.usage.output_tokens > 0


def test_a_changed_beginning_waits_for_the_end() -> None:
    stream = TextStream("local/x")
    assert [e.delta.text for e in stream.grow("ab")] == ["ab"]
    assert list(stream.grow("ab")) == []
    assert list(stream.grow("ax")) == []
    assert [e.delta.text for e in stream.grow("abc")] == ["c"]
