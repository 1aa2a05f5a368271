"""The student as a model over the wire, for clients of OpenAI's API."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import dspy
import httpx
import litellm
import openai
import pytest
from dspy.lm15 import Config, Message, Request

from routedk.adapters.engine.engine import engine_lm
from tests.running import PATIENCE

from .conftest import GatedEngine, Start

HELLO: list[Any] = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "Hello"},
]


@pytest.fixture
def client(start: Start) -> httpx.Client:
    return start(token="right")


@pytest.fixture
def api(client: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{client.base_url}/v1", api_key="right", timeout=PATIENCE, max_retries=0
    )


@pytest.fixture
def loop() -> Iterator[None]:
    """An event loop that is closed; LiteLLM makes one where there is none, and leaves it open."""
    with asyncio.Runner() as runner:
        runner.get_loop()
        yield


def said(engine: GatedEngine, **options: Any) -> str:
    """What the student says in this process."""
    lm = engine_lm(engine)
    config = Config(**options)
    hello = Request(lm.model, (Message.user("Hello"),), "Answer in one word.", config=config)
    return str(lm(hello).message.text)


def test_openai(api: openai.OpenAI, engine: GatedEngine) -> None:
    assert [model.id for model in api.models.list()] == ["routedk"]
    assert api.models.retrieve("routedk") == next(iter(api.models.list()))
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("other/model")
    answer = api.chat.completions.create(model="routedk", messages=HELLO, max_tokens=5)
    (choice,) = answer.choices
    assert choice.message.content == said(engine, max_tokens=5) != ""
    assert choice.message.role == "assistant"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(engine.batches[0][0].prompt.ids)
    assert 0 < answer.usage.completion_tokens <= 5
    assert choice.finish_reason == ("length" if answer.usage.completion_tokens == 5 else "stop")
    assert f"local/{answer.system_fingerprint}" == engine_lm(engine).model


def test_samples(api: openai.OpenAI, engine: GatedEngine) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "max_completion_tokens": 5}
    texts = []
    for seed in range(4):
        answer = api.chat.completions.create(model="routedk", messages=HELLO, seed=seed, **options)
        texts.append(answer.choices[0].message.content)
    options["max_tokens"] = options.pop("max_completion_tokens")
    assert texts == [said(engine, seed=seed, **options) for seed in range(4)]
    assert len(set(texts)) > 1


def test_a_stream_is_the_finished_answer(api: openai.OpenAI, engine: GatedEngine) -> None:
    stream = api.chat.completions.create(
        model="routedk",
        messages=HELLO,
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == said(engine, max_tokens=5)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.prompt_tokens == len(engine.batches[0][0].prompt.ids)


def test_a_stream_ends_as_clients_expect(client: httpx.Client) -> None:
    found = client.post(
        "/v1/chat/completions",
        json={"model": "routedk", "messages": HELLO, "max_tokens": 2, "stream": True},
        headers={"Authorization": "Bearer right"},
    )
    assert found.headers["content-type"].startswith("text/event-stream")
    *events, end, rest = found.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    assert [json.loads(event.removeprefix("data: "))["usage"] for event in events] == [None] * 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "the only one is 'routedk'"),
        ({"messages": []}, openai.BadRequestError, "at least one message"),
        ({"messages": [{"role": "boss", "content": "x"}]}, openai.BadRequestError, "role must be"),
        ({"messages": "Hello"}, openai.BadRequestError, "messages must be an array"),
        ({"temperature": 3}, openai.BadRequestError, "temperature must be in"),
        ({"max_tokens": 0.5}, openai.BadRequestError, "max_tokens"),
        ({"n": 2}, openai.BadRequestError, "the student does not support n: leave it out"),
        ({"stop": ["x"]}, openai.BadRequestError, "the student does not support stop: leave it"),
        (
            {"response_format": {"type": "json_object"}},
            openai.BadRequestError,
            "the student does not support response_format",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image_url",
                                "image_url": {"url": "https://shop.example/x.png"},
                            }
                        ],
                    }
                ]
            },
            openai.BadRequestError,
            "the student reads text only",
        ),
    ],
)
def test_what_is_refused(
    api: openai.OpenAI, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    asked: dict[str, Any] = {"model": "routedk", "messages": HELLO, "max_tokens": 2, **changes}
    with pytest.raises(error, match=message):
        api.chat.completions.create(**asked)


def test_what_is_the_case_anyway_may_be_said(api: openai.OpenAI) -> None:
    said = api.chat.completions.create(
        model="routedk",
        messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        max_tokens=2,
        n=1,
        stop=None,
        frequency_penalty=0,
        logprobs=False,
        response_format={"type": "text"},
        user="someone",
    )
    assert said.choices[0].message.content is not None


def test_a_wrong_token(api: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="send the server's token"):
        api.with_options(api_key="wrong").models.list()


@pytest.mark.usefixtures("loop")
def test_litellm(client: httpx.Client, engine: GatedEngine) -> None:
    options: dict[str, Any] = {
        "model": "openai/routedk",
        "api_base": f"{client.base_url}/v1",
        "api_key": "right",
        "max_tokens": 5,
        "num_retries": 0,
    }
    answer = litellm.completion(messages=HELLO, **options)
    assert answer.choices[0].message.content == said(engine, max_tokens=5)
    assert answer.usage.prompt_tokens == len(engine.batches[0][0].prompt.ids)
    long = [{"role": "user", "content": "cup " * 2000}]
    with pytest.raises(litellm.ContextWindowExceededError, match="context window has 1024"):
        litellm.completion(messages=long, **options)


@pytest.mark.usefixtures("loop")
def test_dspy(client: httpx.Client, engine: GatedEngine) -> None:
    lm = dspy.LM(
        "openai/routedk",
        api_base=f"{client.base_url}/v1",
        api_key="right",
        max_tokens=5,
        temperature=0.0,
        cache=False,
        num_retries=0,
    )
    assert lm("Hello") == engine_lm(engine)("Hello", max_tokens=5)
    assert lm.history[-1]["usage"]["prompt_tokens"] == len(engine.batches[0][0].prompt.ids)
