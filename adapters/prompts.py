"""Encodes chat messages as token ids, and locates the session's own tokens among them."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import lru_cache, partial
from typing import Any

from jinja2 import TemplateError

from routedk.errors import StudentError
from routedk.programs.prompting.layout import Message

Tokenizer = Any  # transformers' tokenizers are untyped here

# What templates show as today's date, so that prompts and their hashes do not change daily.
_DATE = date(2024, 7, 26)
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
# Occurs in no template.
_ANSWER = "Qz7answer"


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as tokens.

    Args:
        ids: Token ids, up to and including the answer's turn marker.
        span: First token and one past the last token of the session's item lines; the whole
            prompt if it holds no session. The router pools over it.
    """

    ids: tuple[int, ...]
    span: tuple[int, int]


def encode_prompt(
    tokenizer: Tokenizer, messages: Sequence[Message], items: Sequence[str] = ()
) -> EncodedPrompt:
    """Render messages with the chat template and tokenize them.

    Args:
        tokenizer: The student's.
        messages: The chat messages.
        items: The session's numbered lines, as they stand in the last message; empty if the
            prompt is not about a session.
    """
    text = render_chat(tokenizer, messages, add_generation_prompt=True)
    text += _around_answer(tokenizer, tokenizer.get_chat_template())[0]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = tuple(encoded["input_ids"])
    lines = "\n".join(items)
    start = text.rfind(lines) if lines else -1
    if start < 0:
        return EncodedPrompt(ids, (0, len(ids)))
    end = start + len(lines)
    inside = [k for k, (a, b) in enumerate(encoded["offset_mapping"]) if a < end and b > start]
    return EncodedPrompt(ids, (inside[0], inside[-1] + 1))


def render_chat(tokenizer: Tokenizer, messages: Sequence[Message], **options: Any) -> str:
    """Render messages with the chat template.

    If the template has no system turn, the system text is prepended to the first user turn.

    Args:
        tokenizer: The student's.
        messages: The chat messages.
        options: The template's options.

    Raises:
        StudentError: The template rejects the messages.
    """
    template = tokenizer.get_chat_template()
    dated = _TODAY.sub(lambda call: json.dumps(_DATE.strftime(call[2])), template)
    options |= {"chat_template": dated, "tokenize": False}
    render: Callable[..., str] = partial(tokenizer.apply_chat_template, **options)
    chat = list(messages)
    if len(chat) > 1 and chat[0]["role"] == "system":
        system, first, *others = chat
        with suppress(TemplateError):
            text = render(chat)
            if system["content"].strip() in text:
                return text
        chat = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *others]
    try:
        return render(chat)
    except TemplateError as error:
        raise StudentError(f"the student's chat template refuses the prompt: {error}") from error


@lru_cache(maxsize=8)
def _around_answer(tokenizer: Tokenizer, template: str) -> tuple[str, int]:
    """What a tokenizer's own template puts around an answer, found by rendering one.

    Returns:
        The text between the generation prompt and the answer, and the token that ends it.
    """
    user = {"role": "user", "content": "Hello"}
    answer = {"role": "assistant", "content": _ANSWER}
    asked = render_chat(tokenizer, [user], add_generation_prompt=True)
    before, _, after = render_chat(tokenizer, [user, answer]).partition(_ANSWER)
    # If nothing closes an answer, the next turn does.
    after += render_chat(tokenizer, [user, answer, user]).partition(_ANSWER)[2]
    special, ids = set(tokenizer.all_special_ids), tokenizer(after, add_special_tokens=False)
    end = next((token for token in ids["input_ids"] if token in special), tokenizer.eos_token_id)
    # A trailing space would be a token of its own, separate from the answer's first word.
    opening = before[len(asked) :].rstrip(" ") if before.startswith(asked) else ""
    return opening, int(end)


def end_of_turn(tokenizer: Tokenizer) -> int:
    """The token that ends an assistant turn: the first special token after a rendered answer."""
    return _around_answer(tokenizer, tokenizer.get_chat_template())[1]


def encode_after(tokenizer: Tokenizer, before: str, text: str) -> tuple[int, ...]:
    """The tokens of a text as the continuation of another one.

    Some tokenizers prepend a space to any input, which no answer has there.

    Args:
        tokenizer: The student's.
        before: The text before it; if one of its tokens spans both, ``text`` is encoded alone.
        text: The text to encode.
    """
    lead = tokenizer(before, add_special_tokens=False)["input_ids"]
    whole = tokenizer(before + text, add_special_tokens=False)["input_ids"]
    if whole[: len(lead)] == lead:
        return tuple(whole[len(lead) :])
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
