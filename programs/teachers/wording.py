"""Words of titles and intents: what kind of thing an item is, and which intents are meaningless."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import regex

from routedk.programs.prompting.text import neutralise
from routedk.similarity.words import DENSE
from routedk.types import Item, Session

# Words that people write in intents without saying what the bundle is for.
_EMPTY_WORDS = frozenset(
    """accesory accesories accessory and bundle buy combo cool device different equipment general
    good great group item kit like nice none other product purpose related set several stuff thing
    type unknown use used useful various""".split()  # noqa: SIM905
)
_WORD = regex.compile(rf"[^\W\d_][^\W_]+|{DENSE}")
_PHRASE_END = re.compile(
    r"[,;:(|/]|\s[-–—]\s|\b(?:and|by|compatible|fits?|for|from|in|of|on|to|w|with|without)\b",
    re.IGNORECASE,
)
_PLAIN = regex.compile(rf"[^\W\d_]{{3,}}|.*{DENSE}.*")


@cache
def _empty_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return _EMPTY_WORDS | (frozenset(ENGLISH_STOP_WORDS) - {"computer", "system"})


def leaf_category(categories: Sequence[str]) -> str:
    """The most specific category of an item's path, as one harmless line; empty without one."""
    return neutralise(categories[-1]) if categories else ""


def stem(word: str) -> str:
    """A lower-case word without its plural ending."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def plain_intent(intent: str) -> str:
    """An intent as a phrase within a sentence; empty for a junk intent ("2", "nice")."""
    if _empty_words().issuperset(map(stem, _WORD.findall(neutralise(intent).lower()))):
        return ""
    words = neutralise(intent, 8).rstrip(".!?,;。 ").split()
    # Capitals that mean something (TV, iPad) stay, those of a sentence or a heading go.
    return " ".join(w.lower() if w[1:].islower() or len(w) == 1 else w for w in words)


class Kinds:
    """The kind of thing each item is, as learned from the titles of training sessions.

    Args:
        sessions: Training sessions; pairs of words that recur in their titles name kinds.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        titles = {item.title for session in sessions for item in session.items}
        self._recurring = Counter(
            pair for title in titles for pair in set(map(_stems, _pairs(title)))
        )

    def phrase(self, item: Item) -> str:
        """The pair of words of its title that recurs most, e.g. ``screen protector``.

        Of equal ones the last; where none recurs, the last two words of its title's first phrase.
        """
        pairs = reversed(_pairs(item.title))
        best = max(pairs, key=lambda pair: self._recurring[_stems(pair)], default="")
        return best if self._recurring[_stems(best)] > 1 else _short_title(item)

    def names(self, item: Item) -> frozenset[str]:
        """Every name for its kind, in lower case: its leaf category and its phrase."""
        return frozenset({leaf_category(item.categories).lower(), _stems(self.phrase(item))} - {""})


def _short_title(item: Item) -> str:
    """The last two plain words of a title's first phrase: mostly what the item is."""
    for phrase in _PHRASE_END.split(neutralise(item.title, 24)):
        plain = [word for word in map(_bare, phrase.split()) if _PLAIN.fullmatch(word)]
        if plain:
            return " ".join(plain[-2:]).lower()
    return leaf_category(item.categories).lower() or "untitled item"


def _bare(word: str) -> str:
    return word.strip(".,;:()®™'\"!")


def _pairs(title: str) -> list[str]:
    """Neighbouring plain words of a title, lower case, without its first word: the brand."""
    words = [_bare(word).lower() for word in neutralise(title, 16).split()][1:]
    usable = [bool(_PLAIN.fullmatch(word)) and stem(word) not in _empty_words() for word in words]
    return [f"{words[n]} {words[n + 1]}" for n in range(len(words) - 1) if all(usable[n : n + 2])]


def _stems(phrase: str) -> str:
    return " ".join(map(stem, phrase.split()))
