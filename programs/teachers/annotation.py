"""The annotation teacher: knowledge from gold bundles, gold intents and the catalogue.

Deterministic and offline; it reads what annotators wrote where an LM teacher would guess.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import log

import regex

from routedk.programs.prompting.grounding import phrases_of, stem
from routedk.programs.prompting.text import RULE_WORDS, neutralise
from routedk.programs.teachers.annotation_intents import GoldIntents, plain_intent
from routedk.programs.teachers.config import ANNOTATION, DistillConfig
from routedk.programs.teachers.patterns import leaf_category, mine_patterns
from routedk.similarity.words import DENSE
from routedk.types import Item, KnowledgeBase, Provenance, Rule, Session, Thought

_KINDS_IN_A_RULE = 4
_LEAST_BUNDLES = 2
_PLAIN = regex.compile(rf"(?<!\S)(?:[^\W\d_]{{3,}}|\S*{DENSE}\S*)(?!\S)")


def annotation_knowledge(sessions: Sequence[Session], config: DistillConfig) -> KnowledgeBase:
    """Make knowledge from annotations.

    A thought names the intent of each item, see `routedk.programs.prompting.item_intents`; a rule
    says which kinds of items serve a frequent intent, named in the same words.

    Args:
        sessions: Training sessions with gold, the only input.
        config: Which formats, and how many patterns and rules.
    """
    intents = GoldIntents(sessions)
    thoughts = (
        Thought(
            session_id=session.id,
            text=intents.thought(session),
            provenance=Provenance(teacher=ANNOTATION, sessions=(session.id,)),
        )
        for session in sessions
    )
    return KnowledgeBase(
        patterns=mine_patterns(sessions, config) if config.makes("pattern") else (),
        rules=_rules(sessions, intents)[: config.max_rules] if config.makes("rule") else (),
        thoughts=tuple(thoughts) if config.makes("thought") else (),
    )


def _rules(sessions: Sequence[Session], intents: GoldIntents) -> tuple[Rule, ...]:
    """A rule for each intent with kinds that recur in its bundles, the most telling rules first."""
    serving: defaultdict[str, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for session in sessions:
        for bundle in session.bundles or ():
            if plain_intent(bundle.intent):
                names = (kind_names(session.item(item_id)) for item_id in bundle.item_ids)
                held = frozenset[str]().union(*names)
                serving[intents.word(bundle.intent)].append((session.id, held))
    overall = Counter(kind for found in serving.values() for _, held in found for kind in held)
    total = sum(map(len, serving.values()))
    rules: list[tuple[float, Rule]] = []
    for intent, found in serving.items():
        inside = Counter(kind for _, held in found for kind in held)
        # How much more often a kind occurs than in all bundles: n log(n / expected).
        weights = {
            kind: count * log(count * total / (overall[kind] * len(found)))
            for kind, count in inside.items()
            if count >= _LEAST_BUNDLES
        }
        telling = _most_telling(weights)
        if telling:
            text = neutralise(f"For {intent}, bundle {_joined(telling)}.", RULE_WORDS)
            source = tuple(dict.fromkeys(name for name, _ in found))
            rule = Rule(text=text, provenance=Provenance(teacher=ANNOTATION, sessions=source))
            rules.append((sum(weights[kind] for kind in telling), rule))
    rules.sort(key=lambda found: (-found[0], found[1].text))
    return tuple(rule for _, rule in rules)


def _most_telling(weights: Mapping[str, float]) -> list[str]:
    """The kinds of highest weight, with no word in two of them."""
    chosen: list[str] = []
    used: set[str] = set()
    for kind in sorted(weights, key=lambda kind: (-weights[kind], kind)):
        words = set(map(stem, kind.split())) - {"&"}
        if weights[kind] > 0 and not words & used and len(chosen) < _KINDS_IN_A_RULE:
            chosen.append(kind)
            used |= words
    return chosen


def _joined(kinds: Sequence[str]) -> str:
    """``a with b, c and d``, or ``several a`` if there is only one."""
    if len(kinds) == 1:
        return f"several {kinds[0]}"
    first, *between, last = kinds
    return f"{first} with " + " and ".join(filter(None, (", ".join(between), last)))


def kind_names(item: Item) -> frozenset[str]:
    """The names for the kind of thing an item is, e.g. ``{"cases", "battery case"}``.

    They are its leaf category, and the last two plain words, without plural endings, of the first
    phrase of its title that has any.
    """
    phrases = phrases_of(neutralise(item.title, 24).lower())
    named: list[str] = next(filter(None, map(_PLAIN.findall, phrases)), [])
    names = {leaf_category(item.categories).lower(), " ".join(map(stem, named[-2:]))}
    return frozenset(names - {""})
