"""How many tokens a prompt has, by the language model's own tokenizer or by an estimate."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from routedk.programs.prompting.layout import Message

TokenCounter = Callable[[Sequence[Message]], int]

BYTES_PER_TOKEN = 2.5
TOKENS_PER_MESSAGE = 4


def estimated_tokens(messages: Sequence[Message]) -> int:
    """An estimate on the high side: a token for every 2.5 bytes of UTF-8, and 4 per message.

    Prompts of this package have 2.5 to 3.9 bytes per token of the embedded student, chat markers
    included; tokenizers of larger vocabularies need fewer tokens.

    Args:
        messages: The chat messages of one request.
    """
    sizes = (len(message["content"].encode()) for message in messages)
    return sum(math.ceil(size / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE for size in sizes)


def token_counter(lm: Any) -> TokenCounter:
    """Make the function that counts the tokens of a prompt for a language model.

    Args:
        lm: A ``dspy.LM``, or None.

    Returns:
        The ``prompt_tokens`` of its engine, which a student in this process has, else
        `estimated_tokens`.
    """
    counter: TokenCounter | None = getattr(getattr(lm, "engine", None), "prompt_tokens", None)
    return counter or estimated_tokens
