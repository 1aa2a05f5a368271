"""Over a real wire: LiteLLM, and a server that breaks calls."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMAuthError, LMServerError, LMUnsupportedModelError

from routedk.programs.generator import BundleGenerator
from routedk.programs.teachers.asker import is_session_error
from routedk.programs.teachers.named_lm import named_lm
from routedk.types import Session

from .engines import Open
from .wire import Fault, FaultyServer, Reply

pytestmark = pytest.mark.usefixtures("litellm_loop")

_BUSY = json.dumps({"error": {"message": "please be patient", "type": "busy"}})
_EMPTY = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer().running() as running:
        yield running


def lm_at(address: str, **options: Any) -> Any:
    options = {"timeout": 60, "num_retries": 2, "temperature": 0.0, "max_tokens": 8, **options}
    return dspy.LM("openai/fake", api_base=address, api_key="none", engine="litellm", **options)


def test_a_server_is_asked_once_for_each_question_and_told_its_key(
    server: FaultyServer, opened: Open, path: Path
) -> None:
    for _ in range(2):
        journaled = opened(lm_at(server.address))
        answers = [journaled(question) for question in ("tea?", "mugs?", "tea?")]
    assert answers == [["re: tea?"], ["re: mugs?"], ["re: tea?"]]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [sent["idempotency-key"] for sent in server.headers] == [line["key"] for line in lines]
    assert [(line["input_tokens"], line["output_tokens"]) for line in lines] == [(10, 5)] * 2


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("openai/gpt-4o-mini", {"temperature": 0.0, "max_tokens": 512}),
        ("openai/gpt-5-mini", {"max_completion_tokens": 16_000}),
        ("openai/o3-mini", {"max_completion_tokens": 16_000}),
        ("openai/gpt-5.1", {"max_completion_tokens": 16_000}),
        ("hosted_vllm/llama", {"temperature": 0.0, "max_tokens": 512}),
    ],
)
def test_a_model_is_sent_only_the_options_that_it_takes(
    server: FaultyServer, tea: Session, model: str, options: dict[str, Any]
) -> None:
    server.answer = lambda question: "1 2 | tea"
    lm = named_lm(model, 512, engine="litellm", api_base=server.address, api_key="none")
    with dspy.context(lm=lm):
        assert BundleGenerator()(session=tea).bundles
    names = ("temperature", "max_tokens", "max_completion_tokens")
    (body,) = server.bodies
    assert {name: body[name] for name in names if name in body} == options


@pytest.mark.parametrize(
    "fault",
    [
        Reply(429, _BUSY, {"Retry-After": "0.1"}),
        Reply(500, _BUSY, {"Retry-After": "0"}),
        "drop",
        Reply(200, '{"id": "x", "choi'),
        Reply(200, json.dumps(_EMPTY)),
    ],
    ids=["429", "500", "drop", "malformed", "no choices"],
)
def test_a_broken_call_is_made_again_and_kept_once(
    server: FaultyServer, opened: Open, path: Path, fault: Fault
) -> None:
    server.faults = [fault]
    journaled = opened(lm_at(server.address))
    assert journaled("tea?") == journaled("tea?") == ["re: tea?"]
    assert len(server.arrivals) == 2
    # A server that knows the header sees that it is the same call.
    assert len({sent["idempotency-key"] for sent in server.headers}) == 1
    assert len(path.read_text().splitlines()) == 1


def test_a_call_that_stalls_is_cancelled_and_made_again(server: FaultyServer, opened: Open) -> None:
    server.faults = ["stall"]
    assert opened(lm_at(server.address, timeout=2))("tea?") == ["re: tea?"]
    # A busy machine may take longer than the time-out, too.
    assert len(server.arrivals) >= 2


def test_a_server_that_says_when_is_not_asked_before(server: FaultyServer, opened: Open) -> None:
    server.faults = [Reply(429, _BUSY, {"Retry-After": "2.5"})]
    opened(lm_at(server.address))("tea?")
    first, second = server.arrivals
    # DSPy's own wait before a first retry is one second.
    assert second - first >= 2.5


@pytest.mark.parametrize(
    ("reply", "error", "message", "calls"),
    [
        (Reply(401, '{"error": {"message": "no such key"}}'), LMAuthError, "no such key", 1),
        (
            Reply(404, '{"error": {"message": "no such model"}}'),
            LMUnsupportedModelError,
            "no such model",
            1,
        ),
        (Reply(500, _BUSY, {"Retry-After": "0"}), LMServerError, "please be patient", 3),
    ],
    ids=["401", "404", "500 for ever"],
)
def test_a_server_that_fails_for_good_is_an_error_with_its_message(
    server: FaultyServer,
    opened: Open,
    path: Path,
    reply: Reply,
    error: type[Exception],
    message: str,
    calls: int,
) -> None:
    server.for_ever = reply
    with pytest.raises(error, match=message) as caught:
        opened(lm_at(server.address))("tea?")
    assert len(server.arrivals) == calls
    assert not is_session_error(caught.value)
    assert path.read_bytes() == b""


def test_a_prompt_beyond_the_context_window_is_one_sessions(
    server: FaultyServer, opened: Open
) -> None:
    body = {"message": "8 tokens at most", "code": "context_length_exceeded"}
    server.for_ever = Reply(400, json.dumps({"error": body}))
    with pytest.raises(dspy.ContextWindowExceededError, match="8 tokens at most") as caught:
        opened(lm_at(server.address))("tea?")
    assert len(server.arrivals) == 1
    assert is_session_error(caught.value)


def test_a_server_that_is_not_there_is_an_error(opened: Open) -> None:
    with FaultyServer().running() as server:
        gone = server.address
    with pytest.raises(dspy.utils.exceptions.LMError, match="Connection error") as caught:
        opened(lm_at(gone, num_retries=0))("tea?")
    assert not is_session_error(caught.value)
