"""Which intent each item serves, read off gold bundles and the titles around them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from itertools import count

from routedk.programs.item_intents import (
    LABEL_CHARACTERS,
    LABEL_WORDS,
    NO_INTENT,
    clean_label,
    render_item_intents,
)
from routedk.programs.similarity import WordIndex
from routedk.programs.wording import Kinds, intent_words, plain_intent
from routedk.types import Session

# Average cosine distance below which two intents' bundles are taken to serve one intent.
_SAME_INTENT = 0.7
# Comparing each two intents takes memory; rarer ones keep their own wording.
_MOST_COMPARED = 4000
_VOTERS = 32
_LEAST_SIMILARITY = 0.25
_UNNAMED = "bundle"


class ItemIntents:
    """Names the intent of every item of a training session.

    An item of a gold bundle serves the bundle's intent. Annotators word one intent in many
    ways, so intents are merged first: those whose bundles hold alike titles get the most
    frequent wording. An item outside all bundles serves what the most similar bundled items of
    other training sessions serve; without similar ones it is named by its kind.

    Args:
        sessions: Training sessions with gold; nothing else is looked at.
        kinds: Names items by their kind; by default as these sessions tell.
    """

    def __init__(self, sessions: Sequence[Session], kinds: Kinds | None = None) -> None:
        """Collect what is bundled under which intent."""
        self._kinds = kinds or Kinds(sessions)
        self._bundled = [
            (session.id, session.item(item_id).title, plain_intent(bundle.intent))
            for session in sessions
            for bundle in session.bundles or ()
            if intent_words(bundle.intent)
            for item_id in bundle.item_ids
        ]

    @cached_property
    def wording(self) -> Mapping[str, str]:
        """For each intent, as `plain_intent` gives it, the wording of all merged with it."""
        from sklearn.cluster import AgglomerativeClustering

        counts = Counter(intent for _, _, intent in self._bundled)
        intents = sorted(counts, key=lambda intent: (-counts[intent], intent))
        worded = {intent: clean_label(intent) for intent in intents}
        compared = intents[:_MOST_COMPARED]
        if len(compared) < 2:
            return worded
        titles: dict[str, list[str]] = {intent: [intent] for intent in intents}
        for _, title, intent in self._bundled:
            titles[intent].append(title)
        index = WordIndex([" ".join(titles[intent]) for intent in compared])
        groups = AgglomerativeClustering(
            n_clusters=None,
            distance_threshold=_SAME_INTENT,
            metric="precomputed",
            linkage="average",
        ).fit_predict(index.distances())
        first: dict[int, str] = {}
        for intent, group in zip(compared, map(int, groups), strict=True):
            worded[intent] = first.setdefault(group, worded[intent])
        return worded

    @cached_property
    def _index(self) -> WordIndex:
        return WordIndex([title for _, title, _ in self._bundled])

    def label(self, intent: str) -> str:
        """The label of a gold intent: the wording it shares with the intents merged with it."""
        plain = plain_intent(intent)
        return self.wording.get(plain) or clean_label(plain or _UNNAMED)

    def thought(self, session: Session) -> str:
        """The thought that names each item's intent; exactly its gold bundles follow from it."""
        labels: list[list[str]] = [[] for _ in session.items]
        used: set[str] = set()
        for bundle in session.bundles or ():
            label = _unlike(self.label(bundle.intent), used)
            used.add(label)
            for item_id in bundle.item_ids:
                labels[session.number(item_id) - 1].append(label)
        for place, mine in enumerate(labels):
            if not mine:
                guess = self._guess(session, place)
                mine.append(guess if guess not in used else NO_INTENT)
                used.add(guess)
        return render_item_intents(labels)

    def _guess(self, session: Session, place: int) -> str:
        """What similar bundled items of other sessions serve, nearer ones counting more."""
        item = session.items[place]
        scores = self._index.similarities(item.title)
        votes: dict[str, float] = {}
        for row in sorted(range(len(scores)), key=lambda row: -scores[row])[:_VOTERS]:
            other, _, intent = self._bundled[row]
            if other != session.id and scores[row] >= _LEAST_SIMILARITY:
                named = self.wording[intent]
                votes[named] = votes.get(named, 0.0) + scores[row]
        return max(votes, key=votes.__getitem__, default=clean_label(self._kinds.phrase(item)))


def _unlike(label: str, used: AbstractSet[str]) -> str:
    """The label, numbered where it is used: bundles of one session must not fall together."""
    if label not in used and label != NO_INTENT:
        return label
    head = " ".join(label.split()[: LABEL_WORDS - 1])[: LABEL_CHARACTERS - 8].rstrip()
    numbered = (clean_label(f"{head} {number}") for number in count(2))
    return next(name for name in numbered if name not in used)
