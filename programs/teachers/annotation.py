"""The annotation teacher: knowledge from gold bundles, gold intents and the catalogue.

Deterministic and offline; it reads what annotators wrote where an LM teacher would guess.
"""

from collections.abc import Sequence

from routedk.errors import SettingError
from routedk.programs.prompting.wording import Kinds
from routedk.programs.teachers.annotation_intents import ItemIntents
from routedk.programs.teachers.annotation_rules import general_rules, intent_rules
from routedk.programs.teachers.patterns import mine_patterns
from routedk.programs.teachers.teacher import ALL_FORMATS, Format, check_formats
from routedk.similarity.encoders import TitleEncoder
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, Session, Thought

TEACHER = "annotation"


class AnnotationTeacher:
    """Composes knowledge from annotations.

    A thought names the intent of each item, see `routedk.programs.prompting.item_intents`; rules
    name intents in the same words.

    Args:
        formats: Kinds of knowledge to make.
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
        formats: Sequence[Format] = ALL_FORMATS,
        max_rules: int = 24,
        max_patterns: int = 50,
        min_support: float = 0.01,
        encoder: TitleEncoder | None = None,
    ) -> None:
        """Check and keep the settings."""
        if max_rules < 0:
            raise SettingError(f"max_rules={max_rules}: it must be at least 0")
        self._formats = check_formats(formats)
        self._max_rules = max_rules
        self._max_patterns = max_patterns
        self._min_support = min_support
        self._encoder = encoder

    def distill(self, sessions: Sequence[Session]) -> KnowledgeBase:
        """See `routedk.programs.teachers.teacher.Teacher`."""
        annotated = [session for session in sessions if session.bundles is not None]
        kinds = Kinds(annotated)
        intents = ItemIntents(annotated, kinds, self._encoder)
        return KnowledgeBase(
            patterns=self._patterns(annotated) if "pattern" in self._formats else (),
            rules=self._rules(annotated, kinds, intents) if "rule" in self._formats else (),
            thoughts=self._thoughts(annotated, intents) if "thought" in self._formats else (),
        )

    def _patterns(self, sessions: Sequence[Session]) -> tuple[Pattern, ...]:
        return mine_patterns(
            sessions, min_support=self._min_support, limit=self._max_patterns, teacher=TEACHER
        )

    def _rules(
        self, sessions: Sequence[Session], kinds: Kinds, intents: ItemIntents
    ) -> tuple[Rule, ...]:
        general = general_rules(sessions, kinds)[: self._max_rules]
        by_intent = intent_rules(sessions, kinds, intents, self._max_rules - len(general))
        return tuple(
            Rule(text=text, provenance=Provenance(teacher=TEACHER, sessions=made_from))
            for text, made_from in (*general, *by_intent)
        )

    def _thoughts(self, sessions: Sequence[Session], intents: ItemIntents) -> tuple[Thought, ...]:
        return tuple(
            Thought(
                session_id=session.id,
                text=intents.thought(session),
                provenance=Provenance(teacher=TEACHER, sessions=(session.id,)),
            )
            for session in sessions
        )
