"""What a language model is asked, as a journal knows it: a key, and the answer as one line."""

import hashlib
import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Self

from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict
from dspy.lm15 import Message, Request, Response, Usage
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import LMServerError

from routedk.errors import RouteDKError
from routedk.programs.journal.journal import JournaledAnswer


class DrawCounter(BaseCallback):  # type: ignore[misc]
    """Tells apart what DSPy asks in the same words: ``rollout_id``, and the draws of ``n``.

    An engine is asked n times for n answers, and is not told of ``rollout_id``.
    """

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Begin to count the draws of one call."""
        options = {**instance.kwargs, **inputs.get("kwargs", {})}
        _call.set(_Call(options.get("rollout_id")))


@dataclass
class _Call:
    rollout_id: int | None
    draws: int = 0


_call: ContextVar[_Call | None] = ContextVar("routedk_journal_call", default=None)


def next_draw() -> None:
    """The present call has the answer to its draw."""
    if (call := _call.get()) is not None:
        call.draws += 1


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, its key, and its size in bytes, which its tokens are not more than."""

    request: Request
    key: str
    size: int

    @classmethod
    def of(cls, request: Request) -> Self:
        """The question of a request, a draw of the present call."""
        call = _call.get()
        asked = request_to_dict(request)
        # How a provider caches prompts changes no answer.
        asked.get("config", {}).pop("cache", None)
        draw = (None, 0) if call is None else (call.rollout_id, call.draws)
        told = json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()
        known = told if draw == (None, 0) else told + json.dumps(draw).encode()
        return cls(request, hashlib.sha256(known).hexdigest(), len(told))

    def answered(
        self, response: Response, priced: Callable[[int, int], float | None], seconds: float
    ) -> JournaledAnswer:
        """A response as a line of the journal.

        Raises:
            NoAnswerError: It holds nothing.
        """
        text = response.message.text or ""
        # A server that counts nothing leaves None or, through LiteLLM, 0.
        read = response.usage.input_tokens or self.size
        written = response.usage.output_tokens or len(text.encode(errors="replace"))
        if not written and response.message == Message.assistant(""):
            raise NoAnswerError(f"{self.request.model}: the server answered without an answer")
        answer = JournaledAnswer(
            key=self.key,
            text=text,
            finish_reason=response.finish_reason,
            input_tokens=read,
            output_tokens=written,
            cost=priced(read, written),
            seconds=seconds,
        )
        whole = replace(
            response,
            id=None,
            model=self.request.model,
            usage=Usage(input_tokens=read, output_tokens=written),
            provider_data=None,
            adaptations=(),
        )
        if whole == self.response(answer):
            return answer
        return replace(answer, whole=response_to_dict(whole))

    def response(self, answer: JournaledAnswer) -> Response:
        """A line of the journal as a response."""
        if answer.whole is not None:
            return response_from_dict(answer.whole)
        return Response(
            id=None,
            model=self.request.model,
            message=Message.assistant(answer.text),
            finish_reason=answer.finish_reason,
            usage=Usage(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens),
        )


class NoAnswerError(RouteDKError, LMServerError):  # type: ignore[misc]
    """A server sent a response without an answer in it, such as an empty list of choices.

    DSPy tries again, as after any error of a server. An answer that is empty because the model
    ended at once has tokens, and is an answer.
    """
