"""The annotation teacher: knowledge from gold bundles, gold intents and the catalogue.

Deterministic and offline; it reads what annotators wrote where an LM teacher would guess.
"""

from collections.abc import Sequence

from routedk.programs.teachers.annotation_intents import GoldIntents
from routedk.programs.teachers.annotation_rules import general_rules, intent_rules
from routedk.programs.teachers.config import ANNOTATION, DistillConfig
from routedk.programs.teachers.patterns import mine_patterns
from routedk.programs.teachers.wording import Kinds
from routedk.types import KnowledgeBase, Provenance, Rule, Session, Thought


def annotation_knowledge(sessions: Sequence[Session], config: DistillConfig) -> KnowledgeBase:
    """Compose knowledge from annotations.

    A thought names the intent of each item, see `routedk.programs.prompting.item_intents`; rules
    name intents in the same words. Up to three rules are general, the others say which kinds of
    items serve a frequent intent.

    Args:
        sessions: Training sessions with gold; nothing else is looked at.
        config: Which formats, and how many patterns and rules.
    """
    kinds = Kinds(sessions)
    intents = GoldIntents(sessions, kinds)
    return KnowledgeBase(
        patterns=mine_patterns(sessions, config) if "pattern" in config.formats else (),
        rules=_rules(sessions, kinds, intents, config) if "rule" in config.formats else (),
        thoughts=_thoughts(sessions, intents) if "thought" in config.formats else (),
    )


def _rules(
    sessions: Sequence[Session], kinds: Kinds, intents: GoldIntents, config: DistillConfig
) -> tuple[Rule, ...]:
    general = general_rules(sessions, kinds)[: config.max_rules]
    by_intent = intent_rules(sessions, kinds, intents, config.max_rules - len(general))
    return tuple(
        Rule(text=text, provenance=Provenance(teacher=ANNOTATION, sessions=made_from))
        for text, made_from in (*general, *by_intent)
    )


def _thoughts(sessions: Sequence[Session], intents: GoldIntents) -> tuple[Thought, ...]:
    return tuple(
        Thought(
            session_id=session.id,
            text=intents.thought(session),
            provenance=Provenance(teacher=ANNOTATION, sessions=(session.id,)),
        )
        for session in sessions
    )
