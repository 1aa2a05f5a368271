"""Words of titles and intents: what kind of thing an item is, what an intent is about."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from routedk.programs.prompting.text import neutralise
from routedk.types import Item, Session

# Words that people write in intents without saying what the bundle is for.
_EMPTY_WORDS = frozenset(
    """accesory accesories accessory and bundle buy combo cool device different equipment general
    good great group item kit like nice none other product purpose related set several stuff thing
    type unknown use used useful various""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[^\W\d_][^\W_]+")
_PHRASE_END = re.compile(
    r"[,;:(|/]|\s[-–—]\s|\b(?:and|by|compatible|fits?|for|from|in|of|on|to|w|with|without)\b",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"[^\W\d_]{3,}")


@cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) - {"computer", "system"}


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


def intent_words(intent: str) -> tuple[str, ...]:
    """Stems of the words that say what an intent is about, in order; empty for a junk intent."""
    found = (stem(word) for word in _WORD.findall(neutralise(intent).lower()))
    return tuple(dict.fromkeys(w for w in found if w not in _EMPTY_WORDS | _stop_words()))


def plain_intent(intent: str) -> str:
    """An intent as a phrase within a sentence; empty for a junk intent."""
    if not intent_words(intent):
        return ""
    words = neutralise(intent, 8).rstrip(".!?,; ").split()
    # Capitals that mean something (TV, iPad) stay, those of a sentence or a heading go.
    return " ".join(w.lower() if w[1:].islower() or len(w) == 1 else w for w in words)


def short_title(item: Item, words: int) -> str:
    """The last plain words of a title's first phrase, lower case: mostly what the item is.

    Args:
        item: The item; without a usable title its leaf category is taken.
        words: Most words, at least 1.
    """
    for phrase in _PHRASE_END.split(neutralise(item.title, 24)):
        plain = [word for word in map(_bare, phrase.split()) if _PLAIN.fullmatch(word)]
        if plain:
            return " ".join(plain[-words:]).lower()
    return leaf_category(item.categories).lower() or "untitled item"


def _bare(word: str) -> str:
    return word.strip(".,;:()®™'\"!")


def _pairs(title: str) -> list[tuple[str, str]]:
    """Neighbouring plain words of a title, lower case, without its first word: the brand."""
    words = [_bare(word).lower() for word in neutralise(title, 16).split()][1:]
    useless = _EMPTY_WORDS | _stop_words()
    usable = [bool(_PLAIN.fullmatch(word)) and stem(word) not in useless for word in words]
    return [(words[n], words[n + 1]) for n in range(len(words) - 1) if usable[n] and usable[n + 1]]


class Kinds:
    """What kind of thing each item is, as far as a catalogue of training sessions tells.

    Args:
        sessions: Training sessions.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Count which pairs of words recur in the catalogue's titles."""
        items = [item for session in sessions for item in session.items]
        self._by_category = 2 * sum(bool(item.categories) for item in items) >= len(items) > 0
        self._phrases: dict[str, str] = {}
        titles = {item.title for item in items}
        self._recurring = Counter(
            pair for title in titles for pair in {_stems(pair) for pair in _pairs(title)}
        )

    def phrase(self, item: Item) -> str:
        """The pair of words of its title that recurs most, e.g. ``screen protector``.

        Without one, the last words of its title's first phrase.
        """
        if item.title in self._phrases:
            return self._phrases[item.title]
        best, most = "", 1
        for pair in _pairs(item.title):
            count = self._recurring[_stems(pair)]
            if count > 1 and count >= most:
                best, most = " ".join(pair), count
        found = best or short_title(item, 2)
        if item.title:
            self._phrases[item.title] = found
        return found

    def of(self, item: Item) -> str:
        """Its leaf category, in a catalogue without categories its phrase; lower case.

        Where most items have categories, one without has no kind (empty): else its kind would
        say that it has no category, which may give the answer away.
        """
        if self._by_category:
            return leaf_category(item.categories).lower()
        return " ".join(map(stem, self.phrase(item).split()))

    def names(self, item: Item) -> frozenset[str]:
        """Every name for its kind: leaf category and phrase."""
        phrase = " ".join(map(stem, self.phrase(item).split()))
        return frozenset({self.of(item), phrase} - {""})


def _stems(pair: tuple[str, str]) -> tuple[str, str]:
    return stem(pair[0]), stem(pair[1])
