"""Keeps an intent from naming what is not in its bundle.

A student that was trained on few hundred intents names one of these for anything it is shown.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from routedk.programs.prompting.item_intents import clean_intent
from routedk.similarity.encoders import TitleEncoder

# Cosine of an intent and the mean of the titles from which on it is taken to be about them.
LEAST_ALIKE = 0.35
_LONGEST_PHRASE = 4
_WORD = re.compile(r"[^\W\d_]{3,}")
# Words that say nothing of what a bundle holds.
_EMPTY = frozenset(
    """accessories accessory and bundle collection essentials everyday for from gear general gift
    good great item items kit new of other product products set sets shopping stuff style the thing
    things to use various with your""".split()  # noqa: SIM905
)


def grounded(intent: str, titles: Sequence[str], encoder: TitleEncoder) -> str:
    """The intent where the titles support it, else one in the titles' own words.

    Supported is an intent with a word in common with a title, plurals aside, or one that is about
    what the titles are about, by their embeddings.

    Args:
        intent: As a language model wrote it; perhaps empty.
        titles: Of the bundle's items; untitled ones are empty.
        encoder: Embeds intents and titles; used only where no word is in common.

    Returns:
        Empty where there is no title to take words from.
    """
    known = [title for title in titles if title.strip()]
    named = {_stem(word) for word in _words(intent)}
    if named & {_stem(word) for title in known for word in _words(title)}:
        return intent
    if named and known and _alike(intent, known, encoder) >= LEAST_ALIKE:
        return intent
    return _own_words(known)


def _alike(intent: str, titles: Sequence[str], encoder: TitleEncoder) -> float:
    vector, *rows = encoder.encode([intent, *titles])
    mean = np.mean(rows, axis=0)
    return float(vector @ mean / max(float(np.linalg.norm(mean)), 1e-9))


def _own_words(titles: Sequence[str]) -> str:
    """The longest phrase that most titles share, else the last word of the first title's start.

    A title mostly ends its first phrase with what the item is: ``Fellow kettle, 1 l, black``.
    """
    counts: Counter[str] = Counter()
    for title in titles:
        counts.update(set(_phrases(title)))
    shared = [phrase for phrase, count in counts.items() if count > 1]
    if shared:
        best = max(shared, key=lambda phrase: (counts[phrase], len(phrase.split()), len(phrase)))
        return clean_intent(best)
    heads = [words[-1] for words in map(_words, map(_first_phrase, titles)) if words]
    return clean_intent(" and ".join(dict.fromkeys(heads[:2]))) if heads else ""


def _phrases(title: str) -> Iterator[str]:
    words = [word.lower() for word in re.findall(r"\w+", title)]
    for first in range(len(words)):
        for length in range(1, _LONGEST_PHRASE + 1):
            phrase = words[first : first + length]
            if _words(phrase[0]) and _words(phrase[-1]):
                yield " ".join(phrase)


def _first_phrase(title: str) -> str:
    return re.split(r"[,;:(|/]|\s[-–—]\s|\b(?:for|with|by|in)\b", title, maxsplit=1)[0] or title


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in _EMPTY]


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
