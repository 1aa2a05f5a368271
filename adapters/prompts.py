"""Chat messages to token ids, and where the session's own tokens are among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from routedk.programs.prompting.layout import Message

Tokenizer = Any  # transformers' tokenizers are untyped here


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as tokens.

    Args:
        ids: Token ids, up to and with the turn marker of the answer.
        span: First token and one past the last token of the session's item lines; the whole
            prompt where it holds no session. The router pools over it.
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
        items: The session's numbered lines, as they stand in the last message; none where the
            prompt asks about no session.
    """
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = tuple(encoded["input_ids"])
    lines = "\n".join(items)
    start = text.rfind(lines) if lines else -1
    if start < 0:
        return EncodedPrompt(ids, (0, len(ids)))
    end = start + len(lines)
    inside = [k for k, (a, b) in enumerate(encoded["offset_mapping"]) if a < end and b > start]
    return EncodedPrompt(ids, (inside[0], inside[-1] + 1))


def end_of_turn(tokenizer: Tokenizer) -> int:
    """The token that ends an assistant turn: the first special token after a rendered answer."""
    marker = "x"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": marker}, {"role": "assistant", "content": marker}],
        tokenize=False,
    )
    tail = rendered[rendered.rindex(marker) + 1 :]
    special = set(tokenizer.all_special_ids)
    ids: list[int] = tokenizer(tail, add_special_tokens=False)["input_ids"]
    return next((token for token in ids if token in special), int(tokenizer.eos_token_id))
