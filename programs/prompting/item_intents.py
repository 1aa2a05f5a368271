"""A thought that names the intent each item serves; items with an intent in common are a bundle.

``1 coffee brewing; 2 coffee brewing; 3 hike in the rain / wet weather; 4 hike in the rain``

Item numbers alone are easy for a language model to guess by counting up. Naming an intent
needs the item's content, and which items go together then follows without another guess.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from routedk.programs.prompting.text import neutralise
from routedk.types import Bundle, Session

# The intents of each item, in item order.
ItemIntents: TypeAlias = Sequence[Sequence[str]]

NO_INTENT = "none"
ITEM_INTENT_WORDS = 5
ITEM_INTENT_CHARACTERS = 40

_BETWEEN_ITEMS = "; "
_BETWEEN_INTENTS = " / "
_SEPARATORS = str.maketrans({";": " ", "/": " "})
_ENTRY = re.compile(r"([1-9][0-9]{0,5})[.:)]?\s+(\S.*)")


def clean_intent(intent: str) -> str:
    """An intent as it may appear in a thought: few words, none of the thought's own separators."""
    # Neutralize first: this can introduce separators, e.g. from full-width ones.
    plain = neutralise(intent, 4 * ITEM_INTENT_WORDS).lower().translate(_SEPARATORS)
    # The Turkish capital dotted I becomes an i with a combining dot in lower case.
    words = plain.replace("i\u0307", "i").split()[:ITEM_INTENT_WORDS]
    while len(words) > 1 and len(" ".join(words)) > ITEM_INTENT_CHARACTERS:
        words.pop()
    return " ".join(words)[:ITEM_INTENT_CHARACTERS].rstrip(".,:。 ") or NO_INTENT


def render_item_intents(intents: ItemIntents) -> str:
    """The thought that gives each item its intents, in order; an item without any is ``none``."""
    entries = (f"{number} {render_intents(mine)}" for number, mine in enumerate(intents, start=1))
    return _BETWEEN_ITEMS.join(entries)


def render_intents(intents: Sequence[str]) -> str:
    """The intents of one item."""
    named = dict.fromkeys(intent for intent in map(clean_intent, intents) if intent != NO_INTENT)
    return _BETWEEN_INTENTS.join(named) or NO_INTENT


def read_entries(thought: str) -> Iterator[tuple[int, tuple[str, ...]] | str]:
    """The entries of a thought: an item's number with its intents, or text that is not an entry."""
    for text in filter(None, map(str.strip, re.split(r"[;\n]", thought))):
        match = _ENTRY.fullmatch(text)
        if match is None:
            yield text
        else:
            yield int(match[1]), split_intents(match[2])


def read_item_intents(thought: str, num_items: int) -> list[tuple[str, ...]]:
    """The intents of each item, in item order; empty if the thought names none for it.

    Anything that is not an entry for an item of the session is ignored; of several entries for
    the same item, the first counts.

    Args:
        thought: As a student or a teacher wrote it.
        num_items: Number of items in the session.
    """
    found: dict[int, tuple[str, ...]] = {}
    for entry in read_entries(thought):
        if not isinstance(entry, str):
            found.setdefault(*entry)
    return [found.get(number, ()) for number in range(1, num_items + 1)]


def split_intents(text: str) -> tuple[str, ...]:
    """The intents of one item as a student wrote them, without repetitions and ``none``."""
    named = (clean_intent(intent) for intent in text.split("/") if intent.strip())
    return tuple(dict.fromkeys(intent for intent in named if intent != NO_INTENT))


def shared_intents(intents: ItemIntents) -> dict[tuple[int, ...], str]:
    """The ascending numbers of at least two items with an intent in common, with that intent.

    If the same items share several intents, the first counts.
    """
    members: dict[str, list[int]] = {}
    for number, mine in enumerate(intents, start=1):
        for intent in dict.fromkeys(mine):
            members.setdefault(intent, []).append(number)
    shared: dict[tuple[int, ...], str] = {}
    for intent, numbers in members.items():
        if len(numbers) >= 2:
            shared.setdefault(tuple(numbers), intent)
    return shared


def compose_bundles(intents: ItemIntents, session: Session) -> tuple[Bundle, ...]:
    """The bundles that item intents imply: at least two items with an intent in common.

    Args:
        intents: The intents of each item of the session, in order.
        session: The session of the items.
    """
    return tuple(
        Bundle(tuple(session.items[number - 1].id for number in numbers), intent)
        for numbers, intent in shared_intents(intents).items()
    )
