"""The annotation teacher: knowledge from gold bundles, gold intents and the catalogue.

Deterministic and offline; it reads what annotators wrote where an LM teacher would guess.
"""

from collections.abc import Sequence
from typing import Protocol

from routedk.errors import SettingError
from routedk.eval.embeddings import TitleEncoder
from routedk.programs.annotation_intents import ItemIntents
from routedk.programs.annotation_rules import general_rules, intent_rules
from routedk.programs.patterns import mine_patterns
from routedk.programs.wording import Kinds
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

    A thought names the intent of each item, see `routedk.programs.item_intents`; rules name
    intents in the same words.

    Args:
        max_rules: Most rules, at least 0; up to three of them are general, the others say which
            kinds of items serve a frequent intent.
        max_patterns: Most patterns, at least 0.
        min_support: Least share of bundles for a pattern, in (0, 1].
        encoder: Tells which intents and titles are alike; by default the embedded MiniLM.

    Raises:
        SettingError: A value is out of its range.
    """

    def __init__(
        self,
        *,
        max_rules: int = 24,
        max_patterns: int = 50,
        min_support: float = 0.01,
        encoder: TitleEncoder | None = None,
    ) -> None:
        """Check and keep the settings."""
        if max_rules < 0:
            raise SettingError(f"max_rules={max_rules}: it must be at least 0")
        self._max_rules = max_rules
        self._max_patterns = max_patterns
        self._min_support = min_support
        self._encoder = encoder

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
        intents = ItemIntents(annotated, kinds, self._encoder)
        general = general_rules(annotated, kinds)[: self._max_rules]
        by_intent = intent_rules(annotated, kinds, intents, self._max_rules - len(general))
        rules = tuple(
            Rule(text=text, provenance=Provenance(teacher=TEACHER, sessions=made_from))
            for text, made_from in (*general, *by_intent)
        )
        thoughts = tuple(
            Thought(
                session_id=session.id,
                text=intents.thought(session),
                provenance=Provenance(teacher=TEACHER, sessions=(session.id,)),
            )
            for session in annotated
        )
        return KnowledgeBase(patterns=patterns, rules=rules, thoughts=thoughts)
