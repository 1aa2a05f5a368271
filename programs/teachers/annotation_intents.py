"""Which intent each item serves, according to gold bundles and their titles."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from itertools import count

import numpy as np
import regex
from numpy.typing import NDArray

from routedk.programs.prompting.grounding import stem
from routedk.programs.prompting.item_intents import (
    ITEM_INTENT_CHARACTERS,
    ITEM_INTENT_WORDS,
    NO_INTENT,
    clean_intent,
    render_item_intents,
)
from routedk.programs.prompting.text import neutralise
from routedk.similarity.dendrogram import Dendrogram
from routedk.similarity.encoders import default_encoder
from routedk.similarity.words import DENSE, is_latin
from routedk.types import Session

# Average distance up to which two intents count as one, see `GoldIntents`.
_SAME_INTENT = 0.45
# Comparing all pairs of intents takes memory; rarer intents keep their own wording.
_MOST_COMPARED = 4000
_UNNAMED = "bundle"
# Words that people write in intents without saying what the bundle is for.
_EMPTY_WORDS = frozenset(
    """accesory accesories accessory and bundle buy combo cool device different equipment general
    good great group item kit like nice none other product purpose related set several stuff thing
    type unknown use used useful various""".split()  # noqa: SIM905
)
_WORD = regex.compile(rf"[^\W\d_][^\W_]+|{DENSE}")


class GoldIntents:
    """Names the intent of every item of a training session.

    An item of a gold bundle serves the bundle's intent. Annotators word one intent in many
    ways, so intents are merged first (average linkage; the distance of two intents is one minus
    the mean of two cosines, of their wordings and of the titles bundled under them), and the
    most frequent wording stands for all. The encoder knows only the Latin script: intents in
    others are merged only if they are equal. An item outside all bundles serves no known intent.

    Args:
        sessions: Training sessions with gold, the only input.

    Attributes:
        wording: For each intent, as `plain_intent` gives it, the wording shared by all merged
            with it.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._encoder = default_encoder()
        bundled = [
            (session.item(item_id).title, intent)
            for session in sessions
            for bundle in session.bundles or ()
            if (intent := plain_intent(bundle.intent))
            for item_id in bundle.item_ids
        ]
        self._titles = self._encoder.encode([title for title, _ in bundled])
        self._intents = [intent for _, intent in bundled]
        counts = Counter(self._intents)
        intents = sorted(counts, key=lambda intent: (-counts[intent], intent))
        self.wording = {intent: clean_intent(intent) for intent in intents}
        compared = intents[:_MOST_COMPARED]
        tree = Dendrogram(compared, self._distances(compared))
        for cluster in tree.cut(_SAME_INTENT):
            first = min(cluster, key=intents.index)
            self.wording |= dict.fromkeys(cluster, self.wording[first])

    def _distances(self, intents: Sequence[str]) -> NDArray[np.float64]:
        place = {intent: row for row, intent in enumerate(intents)}
        held = np.zeros((len(intents), self._titles.shape[1]))
        for title, intent in zip(self._titles, self._intents, strict=True):
            if intent in place:
                held[place[intent]] += title
        held /= np.maximum(np.linalg.norm(held, axis=1, keepdims=True), 1e-9)
        words = self._encoder.encode(intents).astype(np.float64)
        distances = 1 - (words @ words.T + held @ held.T) / 2
        # The encoder knows only Latin letters.
        known = [is_latin(intent) for intent in intents]
        # Rounding keeps ties ties, whatever the order of summation.
        return np.where(np.outer(known, known), distances.clip(0, 2).round(6), 1.0)

    def word(self, intent: str) -> str:
        """A gold intent in the wording that it shares with the intents merged with it."""
        return self.wording.get(plain_intent(intent), _UNNAMED)

    def thought(self, session: Session) -> str:
        """The thought that names each item's intent; it implies exactly the gold bundles."""
        intents: list[list[str]] = [[] for _ in session.items]
        used: set[str] = set()
        shared = Counter(self.word(bundle.intent) for bundle in session.bundles or ())
        for bundle in session.bundles or ():
            word = self.word(bundle.intent)
            own = clean_intent(plain_intent(bundle.intent) or _UNNAMED)
            intent = _unlike([word] if shared[word] == 1 else [own, word], used)
            used.add(intent)
            for item_id in bundle.item_ids:
                intents[session.number(item_id) - 1].append(intent)
        return render_item_intents(intents)


def _unlike(intents: Sequence[str], used: AbstractSet[str]) -> str:
    """The first unused intent, else a numbered one: a session's bundles must stay distinct."""
    for intent in intents:
        if intent not in used and intent != NO_INTENT:
            return intent
    words = intents[0].split()[: ITEM_INTENT_WORDS - 1]
    head = " ".join(words)[: ITEM_INTENT_CHARACTERS - 8].rstrip()
    numbered = (clean_intent(f"{head} {number}") for number in count(2))
    return next(name for name in numbered if name not in used)


def plain_intent(intent: str) -> str:
    """An intent as a phrase within a sentence; empty for a junk intent ("2", "nice")."""
    if _empty_words().issuperset(map(stem, _WORD.findall(neutralise(intent).lower()))):
        return ""
    words = neutralise(intent, 8).rstrip(".!?,;。 ").split()
    # Capitals that mean something (TV, iPad) stay; those of a sentence or a heading do not.
    return " ".join(w.lower() if w[1:].islower() or len(w) == 1 else w for w in words)


@cache
def _empty_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return _EMPTY_WORDS | (frozenset(ENGLISH_STOP_WORDS) - {"computer", "system"})
