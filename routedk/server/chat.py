"""Chat completions in OpenAI's wire format."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from dspy.lm15 import LM15Error, Request, Response, TextPart, request_from_openai_chat
from fastapi import HTTPException

MODEL = "routedk"
"""The name under which the student is served."""

_USED = {"messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"}
# They do not affect an answer.
_IGNORED = {"model", "stream", "stream_options", "user", "safety_identifier", "store", "metadata"}
_IGNORED |= {"service_tier", "prompt_cache_key"}
_USUAL = {"n": 1, "response_format": {"type": "text"}, "tool_choice": "none"}


def read_request(body: Mapping[str, Any], model: str) -> Request:
    """Read the body of a request.

    Args:
        body: Of ``POST /v1/chat/completions``; its ``model`` is ignored.
        model: The name of the language model in this process.

    Raises:
        HTTPException: It is invalid, or asks for what the student cannot do; status 400.
    """
    # Null, empty, zero and default values change nothing.
    asked = {key for key, value in body.items() if value and value != _USUAL.get(key)}
    if refused := sorted(asked - _USED - _IGNORED):
        raise HTTPException(400, f"the student does not support {', '.join(refused)}: leave it out")
    given = {key: body[key] for key in _USED if body.get(key) is not None}
    try:
        request = request_from_openai_chat({**given, "model": model})
        # A lone surrogate is not valid text.
        json.dumps(given, ensure_ascii=False).encode()
    except (LM15Error, TypeError, ValueError) as error:
        raise HTTPException(400, " ".join(str(error).split())) from None
    system = () if isinstance(request.system, str) else request.system or ()
    parts = [*system, *(part for message in request.messages for part in message.parts)]
    if not all(isinstance(part, TextPart) for part in parts):
        raise HTTPException(400, "messages: the student reads text only, leave other parts out")
    return request


def completion(response: Response) -> dict[str, Any]:
    """The body of an answer; its fingerprint covers all that it depends on besides the request."""
    usage = response.usage
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "system_fingerprint": response.model.rpartition("/")[2],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": response.message.text or ""},
                "logprobs": None,
                "finish_reason": response.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
        },
    }


def events(answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[str]:
    """A finished answer as server-sent events.

    Args:
        answer: From `completion`.
        body: Of the request; its ``stream_options`` say whether to end with the token usage.
    """
    (choice,) = answer["choices"]
    head = {**answer, "object": "chat.completion.chunk", "usage": None}
    text = {"index": 0, "delta": choice["message"], "logprobs": None, "finish_reason": None}
    chunks = [[text], [{**text, "delta": {}, "finish_reason": choice["finish_reason"]}]]
    yield from (_event({**head, "choices": chunk}) for chunk in chunks)
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        yield _event({**head, "choices": [], "usage": answer["usage"]})
    yield "data: [DONE]\n\n"


def _event(chunk: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"
