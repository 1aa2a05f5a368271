"""Rules composed from annotations: what goes with which intent, and what stays out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log
from statistics import quantiles
from typing import TypeAlias

from routedk.programs.prompting.text import RULE_WORDS, neutralise
from routedk.programs.teachers.annotation_intents import GoldIntents
from routedk.programs.teachers.wording import Kinds, intent_words, stem
from routedk.types import Session

# A rule's text and the ids of the sessions it was made from.
Composed: TypeAlias = tuple[str, tuple[str, ...]]

_KINDS_IN_A_RULE = 4
_LEAST_BUNDLES = 2
# A kind, or a pair of kinds, seen less often than this says nothing about what stays out.
_LEAST_SEEN = 5


@dataclass(frozen=True, slots=True)
class _Annotated:
    """One gold bundle with an intent that says something."""

    session_id: str
    phrase: str
    words: tuple[str, ...]
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Bundles whose intents share a word, the kinds typical of them, and how telling those are."""

    places: frozenset[int]
    kinds: tuple[str, ...]
    worth: float


def intent_rules(
    sessions: Sequence[Session], kinds: Kinds, intents: GoldIntents, limit: int
) -> list[Composed]:
    """Which kinds of items go with which frequent intent.

    Bundles are clustered by the words of their intents, worded as in thoughts; the word that
    tells most about its bundles' kinds comes first, bundles of earlier rules not counted again.
    Junk intents ("2", "nice") belong to no cluster.

    Args:
        sessions: Training sessions with gold.
        kinds: What kind each item is.
        intents: How intents are worded.
        limit: Most rules.
    """
    bundles = list(_annotated(sessions, kinds, intents))
    overall = Counter(kind for bundle in bundles for kind in bundle.kinds)
    clusters: dict[str, _Cluster] = {}
    for word in sorted({word for bundle in bundles for word in bundle.words}):
        places = frozenset(p for p, bundle in enumerate(bundles) if word in bundle.words)
        telling = _telling_kinds([bundles[p] for p in places], overall, len(bundles))
        if len(places) >= _LEAST_BUNDLES and telling:
            clusters[word] = _Cluster(places, tuple(telling), sum(telling.values()))
    rules: dict[str, Composed] = {}
    told: set[int] = set()
    while len(rules) < limit and clusters:
        worth = {w: c.worth * len(c.places - told) / len(c.places) for w, c in clusters.items()}
        word = min(clusters, key=lambda w: (-worth[w], w))
        cluster = clusters.pop(word)
        if len(cluster.places - told) < _LEAST_BUNDLES:
            break
        told |= cluster.places
        members = [bundles[place] for place in sorted(cluster.places)]
        phrase = _typical_phrase(members)
        text = f"For {phrase}, bundle {_joined(cluster.kinds)}."
        made_from = tuple(dict.fromkeys(bundle.session_id for bundle in members))
        rules.setdefault(phrase, (neutralise(text, RULE_WORDS), made_from))
    return list(rules.values())


def general_rules(sessions: Sequence[Session], kinds: Kinds) -> list[Composed]:
    """Up to three rules about size, about items of one kind, and about what stays out."""
    told = [session for session in sessions if session.bundles]
    made_from = tuple(session.id for session in told)
    texts = [_size_rule(told), _same_kind_rule(told, kinds), _stays_out_rule(told, kinds)]
    return [(neutralise(text, RULE_WORDS), made_from) for text in texts if text]


def _annotated(
    sessions: Sequence[Session], kinds: Kinds, intents: GoldIntents
) -> Iterable[_Annotated]:
    for session in sessions:
        for bundle in session.bundles or ():
            phrase = intents.word(bundle.intent)
            words = intent_words(phrase) if intent_words(bundle.intent) else ()
            if words:
                held = frozenset[str]().union(
                    *(kinds.names(session.item(i)) for i in bundle.item_ids)
                )
                yield _Annotated(session.id, phrase, words, held)


def _telling_kinds(
    members: Sequence[_Annotated], overall: Counter[str], total: int
) -> dict[str, float]:
    """Kinds that say most about a cluster, n log(n / expected), no word twice among them."""
    inside = Counter(kind for bundle in members for kind in bundle.kinds)
    telling = {
        kind: count * log(count * total / (overall[kind] * len(members)))
        for kind, count in inside.items()
        if count >= _LEAST_BUNDLES
    }
    chosen: dict[str, float] = {}
    used: set[str] = set()
    for kind in sorted(telling, key=lambda kind: (-telling[kind], kind)):
        words = set(map(stem, kind.split())) - {"&"}
        if telling[kind] > 0 and not words & used and len(chosen) < _KINDS_IN_A_RULE:
            chosen[kind] = telling[kind]
            used |= words
    return chosen


def _typical_phrase(members: Sequence[_Annotated]) -> str:
    """The most frequent intent; then that of the most frequent words, the shortest, the first."""
    phrases = Counter(bundle.phrase for bundle in members)
    counts = Counter(word for bundle in members for word in bundle.words)

    def rank(bundle: _Annotated) -> tuple[int, float, int, str]:
        return (
            -phrases[bundle.phrase],
            -sum(counts[w] for w in bundle.words) / len(bundle.words),
            len(bundle.phrase),
            bundle.phrase,
        )

    return min(members, key=rank).phrase


def _joined(names: Sequence[str]) -> str:
    """``a with b, c and d``, or ``several a`` where there is one."""
    first, *others = names
    return f"{first} with {_listed(others)}" if others else f"several {first}"


def _listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _size_rule(sessions: Sequence[Session]) -> str:
    sizes = sorted(len(b.item_ids) for session in sessions for b in session.bundles or ())
    if len(sizes) < _LEAST_SEEN:
        return ""
    whole = sum(any(len(g) == len(s.items) for g in s.gold) for s in sessions) / len(sessions)
    if whole > 0.5:
        return "In most sessions all items make one bundle."
    low, _, high = (round(cut) for cut in quantiles(sizes, n=4))
    size = f"{low}" if low == high else f"{low} to {high}"
    return f"Most bundles hold {size} items; items that serve no shared intent stay out."


def _same_kind_rule(sessions: Sequence[Session], kinds: Kinds) -> str:
    together: dict[bool, list[bool]] = {True: [], False: []}
    for session in sessions:
        for one, other in combinations(session.items, 2):
            kind, other_kind = kinds.of(one), kinds.of(other)
            if kind and other_kind:
                bundled = any({one.id, other.id} <= gold for gold in session.gold)
                together[kind == other_kind].append(bundled)
    if min(map(len, together.values())) < _LEAST_SEEN:
        return ""
    same, different = (sum(seen) / len(seen) for seen in (together[True], together[False]))
    if same > max(0.5, 1.2 * different):
        return "Items of one kind mostly belong to one bundle."
    if different > 1.2 * same:
        return "Items of one kind are alternatives: bundle items that complete each other."
    return ""


def _stays_out_rule(sessions: Sequence[Session], kinds: Kinds) -> str:
    seen: Counter[str] = Counter()
    out: Counter[str] = Counter()
    for session in sessions:
        bundled = frozenset[str]().union(*session.gold)
        for item in session.items:
            kind = kinds.of(item)
            if kind:
                seen[kind] += 1
                out[kind] += item.id not in bundled
    overall = sum(out.values()) / max(1, sum(seen.values()))
    share = {kind: out[kind] / seen[kind] for kind in seen if seen[kind] >= _LEAST_SEEN}
    lone = [kind for kind in share if share[kind] > max(0.5, 1.2 * overall)]
    lone.sort(key=lambda kind: (-(share[kind] - overall) * seen[kind], kind))
    if not lone:
        return ""
    listed = _listed(lone[:3])
    return f"{listed[0].upper()}{listed[1:]} mostly stay out."
