from pathlib import Path
from typing import Any

import pytest

from routedk.adapters.prompts import encode_prompt, end_of_turn
from routedk.adapters.student import Student, load_tokenizer
from routedk.errors import StudentError
from routedk.programs.prompting.layout import (
    NO_CONTEXT,
    Neighbour,
    PromptContext,
    build_prompt,
    render_items,
)
from routedk.types import Session
from tests.adapters.families import TEMPLATES, marked_tokenizer


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


MESSAGES = [
    {"role": "system", "content": "Group the items."},
    {"role": "user", "content": "1 kettle"},
    {"role": "assistant", "content": "none"},
    {"role": "user", "content": "1 cup\n2 strainer"},
]


@pytest.mark.parametrize("name", TEMPLATES)
def test_turns_by_rendering(name: str, tmp_path: Path) -> None:
    template, end, opening = TEMPLATES[name]
    marked_tokenizer(template()).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == end
    assert end_of_turn(tokenizer) in tokenizer.all_special_ids
    prompt = encode_prompt(tokenizer, MESSAGES, ["1 cup", "2 strainer"])
    text = tokenizer.decode(prompt.ids)
    assert text.endswith(opening)
    assert text.count("Group the items.") == 1
    assert text.index("Group the items.") < text.index("1 kettle")
    first, last = prompt.span
    assert "1 cup\n2 strainer" in tokenizer.decode(prompt.ids[first:last])


@pytest.mark.parametrize(
    ("name", "shown"), [("Llama 3.2", "26 Jul 2024"), ("gpt-oss", "2024-07-26")]
)
def test_a_prompt_has_no_date_of_today(name: str, shown: str) -> None:
    tokenizer = marked_tokenizer(TEMPLATES[name][0]())
    assert shown in tokenizer.decode(encode_prompt(tokenizer, MESSAGES).ids)


def test_a_template_that_refuses_the_prompt() -> None:
    tokenizer = marked_tokenizer(TEMPLATES["Gemma"][0]())
    with pytest.raises(StudentError, match="chat template refuses the prompt: Conversation roles"):
        encode_prompt(tokenizer, MESSAGES[1:2] * 2)
