"""Engines to put under a journaled language model."""

import threading
from collections.abc import Callable
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, Usage

from tests.scripted import ScriptedEngine, scripted_lm

Open = Callable[..., Any]


def echo() -> tuple[Any, ScriptedEngine]:
    return scripted_lm(lambda messages: f"re: {messages[-1]['content']}")


class Gate:
    """An engine that answers once its event is set, and counts its calls."""

    supports_response_schema = False
    supported_params = frozenset({"max_tokens", "temperature"})

    def __init__(self, usage: tuple[int | None, int | None] = (10, 5)) -> None:
        self.usage = usage
        self.calls = 0
        self.arrived = threading.Semaphore(0)
        self.go = threading.Event()

    def complete(self, request: Request) -> Response:
        self.calls += 1
        self.arrived.release()
        assert self.go.wait(30)
        return Response(
            id="x1",
            model=request.model,
            message=Message.assistant(self.text(request)),
            finish_reason="stop",
            usage=Usage(input_tokens=self.usage[0], output_tokens=self.usage[1]),
        )

    def text(self, request: Request) -> str:
        return f"re: {request.messages[-1].text}"

    def lm(self, **options: Any) -> Any:
        return dspy.LM("local/gate", engine=self, cache=False, **options)
