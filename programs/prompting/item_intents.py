"""A thought that names the intent each item serves; items with an intent in common are a bundle.

``1 coffee brewing; 2 coffee brewing; 3 hike in the rain / wet weather; 4 hike in the rain``

Item numbers alone are cheap for a language model to guess by counting up. Naming an intent
needs the item's content, and which items go together then follows without a further guess.

A student may name further readings of an item, less and less likely ones:
``1 battery ~ power adapter; 2 camera accessories ~ battery``. Bundles are composed of the first;
grouping by similarity (`routedk.programs.grouping`) weighs them all.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from routedk.programs.prompting.text import neutralise
from routedk.types import Bundle, Session

# The intents of each item, in item order.
Labels: TypeAlias = Sequence[Sequence[str]]
# The readings of each item, in item order; a reading is the item's intents, the likeliest first.
Readings: TypeAlias = Sequence[Labels]

NO_INTENT = "none"
LABEL_WORDS = 5
LABEL_CHARACTERS = 40

_BETWEEN_ITEMS = "; "
_BETWEEN_LABELS = " / "
_BETWEEN_READINGS = " ~ "
_SEPARATORS = str.maketrans({";": " ", "/": " ", "~": " "})
_ENTRY = re.compile(r"([1-9][0-9]{0,5})[.:)]?\s+(\S.*)")


def clean_label(label: str) -> str:
    """A label as it may stand in a thought: few words, none of the thought's own separators."""
    # First neutralise: it can bring separators about, e.g. out of full-width ones.
    plain = neutralise(label, 4 * LABEL_WORDS).lower().translate(_SEPARATORS)
    words = plain.split()[:LABEL_WORDS]
    while len(words) > 1 and len(" ".join(words)) > LABEL_CHARACTERS:
        words.pop()
    return " ".join(words)[:LABEL_CHARACTERS].rstrip(".,: ") or NO_INTENT


def render_item_intents(labels: Labels) -> str:
    """The thought that gives each item, in order, its intents; one without any is ``none``."""
    return _BETWEEN_ITEMS.join(
        f"{number} {render_labels(mine)}" for number, mine in enumerate(labels, start=1)
    )


def render_readings(readings: Readings) -> str:
    """The thought that gives each item, in order, its readings, none of them twice."""
    return _BETWEEN_ITEMS.join(
        f"{number} {_BETWEEN_READINGS.join(dict.fromkeys(map(render_labels, mine))) or NO_INTENT}"
        for number, mine in enumerate(readings, start=1)
    )


def render_labels(mine: Sequence[str]) -> str:
    """The intents of one item."""
    named = dict.fromkeys(label for label in map(clean_label, mine) if label != NO_INTENT)
    return _BETWEEN_LABELS.join(named) or NO_INTENT


def read_entries(thought: str) -> Iterator[tuple[int, list[tuple[str, ...]]] | str]:
    """The entries of a thought: an item's number with its readings, or text that is no entry."""
    for text in filter(None, map(str.strip, re.split(r"[;\n]", thought))):
        match = _ENTRY.fullmatch(text)
        if match is None:
            yield text
        else:
            yield int(match[1]), [split_labels(part) for part in match[2].split("~")]


def read_item_intents(thought: str, num_items: int) -> list[tuple[str, ...]]:
    """The labels of each item in its first reading; empty where the thought names none.

    As `read_readings`.
    """
    return [mine[0] if mine else () for mine in read_readings(thought, num_items)]


def read_readings(thought: str, num_items: int) -> list[list[tuple[str, ...]]]:
    """The readings of each item, in item order; empty where the thought has none.

    What is not an entry of an item of the session is passed over; of entries for the same item
    the first counts.

    Args:
        thought: As a student wrote it.
        num_items: Items of the session.
    """
    found: dict[int, list[tuple[str, ...]]] = {}
    for entry in read_entries(thought):
        if not isinstance(entry, str):
            found.setdefault(*entry)
    return [found.get(number, []) for number in range(1, num_items + 1)]


def split_labels(text: str) -> tuple[str, ...]:
    """The intents of one item as a student wrote them, without repetition and ``none``."""
    named = (clean_label(label) for label in text.split("/") if label.strip())
    return tuple(dict.fromkeys(label for label in named if label != NO_INTENT))


def shared_intents(labels: Labels) -> dict[tuple[int, ...], str]:
    """Item numbers, ascending, that have a label in common, at least two, with that label.

    Of labels that tie the same items the first counts.
    """
    members: dict[str, list[int]] = {}
    for number, mine in enumerate(labels, start=1):
        for label in dict.fromkeys(mine):
            members.setdefault(label, []).append(number)
    shared: dict[tuple[int, ...], str] = {}
    for label, numbers in members.items():
        if len(numbers) >= 2:
            shared.setdefault(tuple(numbers), label)
    return shared


def compose_bundles(labels: Labels, session: Session) -> tuple[Bundle, ...]:
    """The bundles that item labels imply: at least two items with a label in common.

    Args:
        labels: For each item of the session, in order.
        session: Where the items are.
    """
    ids = [item.id for item, _ in zip(session.items, labels, strict=True)]
    return tuple(
        Bundle(tuple(ids[number - 1] for number in numbers), label)
        for numbers, label in shared_intents(labels).items()
    )
