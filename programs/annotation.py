"""The annotation teacher: knowledge from gold bundles, gold intents and the catalogue.

Deterministic and offline; it reads what annotators wrote where an LM teacher would guess.
"""

from collections.abc import Sequence
from typing import Protocol

from routedk.errors import SettingError
from routedk.programs.annotation_rules import general_rules, intent_rules
from routedk.programs.patterns import mine_patterns
from routedk.programs.text import THOUGHT_WORDS, neutralise
from routedk.programs.wording import Kinds, plain_intent
from routedk.types import KnowledgeBase, Provenance, Rule, Session, Thought

TEACHER = "annotation"


class Teacher(Protocol):
    """Distils knowledge from training sessions."""

    def distill(self, sessions: Sequence[Session]) -> KnowledgeBase:
        """Make patterns, rules and thoughts, each with provenance.

        Args:
            sessions: Training sessions with gold; nothing else may be looked at.
        """
        ...


class AnnotationTeacher:
    """Composes the three kinds of knowledge from annotations.

    Args:
        max_rules: Most rules, at least 0; up to three of them are general, the others say which
            kinds of items serve a frequent intent.
        max_patterns: Most patterns, at least 0.
        min_support: Least share of bundles for a pattern, in (0, 1].

    Raises:
        SettingError: A value is out of its range.
    """

    def __init__(
        self, *, max_rules: int = 12, max_patterns: int = 50, min_support: float = 0.01
    ) -> None:
        """Check and keep the settings."""
        if max_rules < 0:
            raise SettingError(f"max_rules={max_rules}: it must be at least 0")
        self._max_rules = max_rules
        self._max_patterns = max_patterns
        self._min_support = min_support

    def distill(self, sessions: Sequence[Session]) -> KnowledgeBase:
        """See `Teacher.distill`; sessions without annotation (``bundles=None``) add nothing."""
        annotated = [session for session in sessions if session.bundles is not None]
        patterns = mine_patterns(
            annotated,
            min_support=self._min_support,
            limit=self._max_patterns,
            teacher=TEACHER,
        )
        kinds = Kinds(annotated)
        general = general_rules(annotated, kinds)[: self._max_rules]
        by_intent = intent_rules(annotated, kinds, self._max_rules - len(general))
        rules = tuple(
            Rule(text=text, provenance=Provenance(teacher=TEACHER, sessions=made_from))
            for text, made_from in (*general, *by_intent)
        )
        thoughts = tuple(
            Thought(
                session_id=session.id,
                text=compose_thought(session, kinds),
                provenance=Provenance(teacher=TEACHER, sessions=(session.id,)),
            )
            for session in annotated
        )
        return KnowledgeBase(patterns=patterns, rules=rules, thoughts=thoughts)


def compose_thought(session: Session, kinds: Kinds) -> str:
    """Why this session's gold bundles are bundles: item facts, intent, composition.

    Example: ``1 kettle, 2 dripper, 4 paper filters serve brewing coffee; 3 phone case stays out``.

    Args:
        session: A session with gold.
        kinds: Names the items.

    Returns:
        One line of at most 48 words that names items of this session only.
    """
    names = [kinds.phrase(item) for item in session.items]
    text = _composition(session, names)
    if len(text.split()) > THOUGHT_WORDS:
        text = _composition(session, [name.split()[-1] for name in names])
    return neutralise(text, THOUGHT_WORDS)


def _composition(session: Session, names: Sequence[str]) -> str:
    named: set[int] = set()
    parts: list[str] = []

    def listed(numbers: Sequence[int]) -> str:
        shown = [str(n) if n in named else f"{n} {names[n - 1]}" for n in numbers]
        named.update(numbers)
        return ", ".join(shown)

    for bundle in session.bundles or ():
        numbers = sorted(session.number(item_id) for item_id in bundle.item_ids)
        intent = plain_intent(bundle.intent)
        parts.append(listed(numbers) + (f" serve {intent}" if intent else " go together"))
    rest = [n for n in range(1, len(names) + 1) if n not in named]
    if not parts:
        parts.append(f"{listed(rest)} share no intent")
    elif rest:
        parts.append(f"{listed(rest)} {'stays' if len(rest) == 1 else 'stay'} out")
    return "; ".join(parts)
