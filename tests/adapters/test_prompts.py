from typing import Any

import pytest

from routedk.adapters.prompts import encode_prompt, end_of_turn
from routedk.adapters.student import Student
from routedk.programs.prompting.layout import (
    NO_CONTEXT,
    Neighbour,
    PromptContext,
    build_prompt,
    render_items,
)
from routedk.types import Session


@pytest.fixture
def tokenizer(loaded: Student) -> Any:
    return loaded.tokenizer


@pytest.mark.parametrize("neighbour", [False, True])
def test_the_span_is_the_session(tokenizer: Any, sessions: list[Session], neighbour: bool) -> None:
    context = NO_CONTEXT
    if neighbour:
        # The neighbour's items are the same: the span is the last of both.
        context = PromptContext(neighbours=(Neighbour(session=sessions[3]),))
    asked = build_prompt(sessions[3], context)
    prompt = encode_prompt(tokenizer, asked.messages, asked.items)
    start, end = prompt.span
    assert render_items(sessions[3]) in tokenizer.decode(prompt.ids[start:end])
    assert tokenizer.decode(prompt.ids[end:]) == "<|im_end|>\n<|im_start|>assistant\n"
    assert start > len(prompt.ids) / 2 if neighbour else start > 0


def test_without_a_session_all_of_the_prompt(tokenizer: Any) -> None:
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "hello"}])
    assert prompt.span == (0, len(prompt.ids))


def test_end_of_turn(tokenizer: Any) -> None:
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_end_of_turn_without_a_marker(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", plain)
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id
