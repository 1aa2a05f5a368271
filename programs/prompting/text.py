"""Make untrusted text harmless before it enters a prompt or leaves an answer."""

import re
import unicodedata
from functools import lru_cache

from routedk.errors import AnswerError

TITLE_WORDS = 12
INTENT_WORDS = 12
RULE_WORDS = 32
# Enough for the intents of a few dozen items.
THOUGHT_WORDS = 400

# Words in a catalogue are rarely longer; text without spaces is capped by this, too.
_CHARACTERS_PER_WORD = 12

# "|" ends the numbers of an answer, and with "<", "[" and "{" gone no special token
# (<|im_start|>, <s>, [INST], [[ ## field ## ]], {{template}}) can be written.
_MARKUP = str.maketrans({"|": "/", "<": " ", ">": " ", "[": "(", "]": ")", "{": "(", "}": ")"})
_ROLE = re.compile(
    r"\b(system|user|assistant|human|developer|tool|thought|rules?|bundles?)\s*:(?:\s*:)*",
    re.IGNORECASE,
)
# Characters that NFKC would rob of their meaning: 1½ becomes 11⁄2, 10² 102, 5″ two feet marks,
# Men´s gets a space, Lego™ becomes LegoTM, the Thai and Lao vowel am two signs in the wrong order.
# Superscript letters may go: 1ˢᵗ is 1st.
_MEANT = re.compile("([¨¯´¸²³¹¼-¾˘-˝‗″‴‶‷⁗⁰⁴-⁾₀-₎℠™⅐-⅟↉㎟-㎦\u0e33\u0eb3]+)")
_DROPPED_CATEGORIES = frozenset({"Cf", "Cs", "Co", "Cn"})
_REASONING_TAG = re.compile(
    r"[<\[◁]\|?(?P<end>/|end_of_)?(?:begin_of_)?(?:seed:)?"
    r"(?:think(?:ing)?|thoughts?|reasoning|analysis)\|?\s*[>\]▷]"
    r"|<\|channel\|>(?:analysis|(?P<final>final))<\|message\|>",
    re.IGNORECASE,
)


def visible(text: str) -> str:
    """Text without invisible characters; control characters and line ends become spaces."""
    kept: list[str] = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif category not in _DROPPED_CATEGORIES:
            kept.append(character)
    return "".join(kept)


def neutralise(text: str, max_words: int = TITLE_WORDS) -> str:
    """Turn untrusted text into one harmless line of at most ``max_words`` words.

    Control characters, line ends, bidirectional and zero-width characters are removed; characters
    used by special tokens and this package's own layout are replaced; a role marker such as
    ``assistant:`` loses its colon; white space is collapsed.

    Args:
        text: Anything.
        max_words: Words kept, at least 1; characters are capped at 12 times as many.

    Returns:
        One line, possibly empty, without leading or trailing spaces.
    """
    # Only the beginning can survive; NFKC expands one character to at most 18.
    return _neutral(text[: 4 * max_words * _CHARACTERS_PER_WORD + 1000], max_words)


# Distilling neutralizes the same titles, categories and intents dozens of times.
@lru_cache(maxsize=1 << 14)
def _neutral(head: str, max_words: int) -> str:
    parts = _MEANT.split(visible(head))
    parts[::2] = [unicodedata.normalize("NFKC", part) for part in parts[::2]]
    plain = visible("".join(parts)).translate(_MARKUP)
    words = _ROLE.sub(r"\1 ", " ".join(plain.split())).split()
    return " ".join(words[:max_words])[: max_words * _CHARACTERS_PER_WORD].strip()


def split_reasoning(text: str) -> tuple[str, str]:
    """Split what a reasoning model wrote into its reasoning and its answer.

    Reasoning is between tags (``<think>``, ``[THINK]``, ``<|begin_of_thought|>`` and the like); the
    opening tag is at the start of a line. If the chat template wrote that tag, the model wrote only
    the closing one: everything before it is reasoning.

    Raises:
        AnswerError: The reasoning does not end.
    """
    reasoning, answer, opened, read = list[str](), list[str](), False, 0
    for tag in _REASONING_TAG.finditer(text):
        ends = bool(tag["end"] or tag["final"])
        began = max(read, text.rfind("\n", 0, tag.start()) + 1)
        if not ends and text[began : tag.start()].strip():
            continue
        (reasoning if opened else answer).append(text[read : tag.start()])
        if ends and not opened:
            reasoning, answer = [*reasoning, *answer], []
        opened, read = not ends, tag.end()
    if opened:
        raise AnswerError("the answer ends inside its reasoning: raise the limit on its tokens")
    return "\n".join(reasoning).strip(), "\n".join([*answer, text[read:]]).strip()
