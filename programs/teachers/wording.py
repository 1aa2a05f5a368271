"""Words of titles and intents: what kind of thing an item is, and which intents are meaningless."""

import re
from collections.abc import Sequence
from functools import cache

from routedk.programs.prompting.grounding import phrases_of, stem
from routedk.programs.prompting.text import neutralise
from routedk.types import Item

# Words that people write in intents without saying what the bundle is for.
_EMPTY_WORDS = frozenset(
    """accesory accesories accessory and bundle buy combo cool device different equipment general
    good great group item kit like nice none other product purpose related set several stuff thing
    type unknown use used useful various""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[^\W\d_][^\W_]+")
_PLAIN = re.compile(r"(?<!\S)[^\W\d_]{3,}(?!\S)")


@cache
def _empty_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return _EMPTY_WORDS | (frozenset(ENGLISH_STOP_WORDS) - {"computer", "system"})


def leaf_category(categories: Sequence[str]) -> str:
    """The most specific category of an item's path, as one harmless line; empty without one."""
    return neutralise(categories[-1]) if categories else ""


def plain_intent(intent: str) -> str:
    """An intent as a phrase within a sentence; empty for a junk intent ("2", "nice")."""
    if _empty_words().issuperset(map(stem, _WORD.findall(neutralise(intent).lower()))):
        return ""
    words = neutralise(intent, 8).rstrip(".!?,; ").split()
    # Capitals that mean something (TV, iPad) stay, those of a sentence or a heading go.
    return " ".join(w.lower() if w[1:].islower() or len(w) == 1 else w for w in words)


def kind_names(item: Item) -> frozenset[str]:
    """The names for the kind of thing an item is, e.g. ``{"cases", "battery case"}``.

    They are its leaf category, and the last two plain words of its title's first phrase that has
    any, without plural endings.
    """
    phrases = phrases_of(neutralise(item.title, 24).lower())
    named = next(filter(None, map(_PLAIN.findall, phrases)), [])
    names = {leaf_category(item.categories).lower(), " ".join(map(stem, named[-2:]))}
    return frozenset(names - {""})
