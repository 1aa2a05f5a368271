"""A scripted language model: tests of programs and teleprompters need no other."""

from collections.abc import Callable
from typing import Any

import dspy
from dspy.lm15 import Message, Response, Usage

from routedk.programs.prompting.layout import Message as ChatMessage

Script = Callable[[list[ChatMessage]], str]


class ScriptedEngine:
    """Answers with a function of the chat messages and keeps every request and its options.

    Args:
        script: From the messages, system message first, to the answer.
    """

    supports_response_schema = False
    supported_params: frozenset[str] = frozenset({"temperature", "max_tokens", "n"})

    def __init__(self, script: Script) -> None:
        """Start without requests."""
        self.script = script
        self.requests: list[list[ChatMessage]] = []
        self.configs: list[Any] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "ScriptedEngine":
        """Copies of a program ask the same engine."""
        return self

    def complete(self, request: Any) -> Any:
        """Answer one request of ``dspy.LM``."""
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages += [{"role": turn.role, "content": turn.text} for turn in request.messages]
        self.requests.append(messages)
        self.configs.append(request.config)
        text = self.script(messages)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(text),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1),
        )


class AsyncScriptedEngine:
    """The same engine for DSPy's async calls."""

    supports_response_schema = False
    supported_params = ScriptedEngine.supported_params

    def __init__(self, engine: ScriptedEngine) -> None:
        """Wrap a scripted engine."""
        self.engine = engine

    def __deepcopy__(self, memo: dict[int, Any]) -> "AsyncScriptedEngine":
        """Copies of a program ask the same engine."""
        return self

    async def complete(self, request: Any) -> Any:
        """Answer one request of ``dspy.LM``."""
        return self.engine.complete(request)


def answering(*answers: str) -> tuple[Any, ScriptedEngine]:
    """A scripted language model that gives these answers in turn, and its engine."""
    left = iter(answers)
    return scripted_lm(lambda messages: next(left))


def scripted_lm(script: Script) -> tuple[Any, ScriptedEngine]:
    """A ``dspy.LM`` that answers by a function, without cache, and its engine."""
    engine = ScriptedEngine(script)
    lm = dspy.LM(
        "local/scripted", engine=engine, async_engine=AsyncScriptedEngine(engine), cache=False
    )
    return lm, engine
