"""The LM teacher: patterns from annotations, rules and thoughts from any ``dspy.LM``."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from routedk.programs.journal.budget import price_of
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.teachers.asker import Asker
from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.patterns import mine_patterns
from routedk.programs.teachers.rule_distiller import (
    StateCauses,
    StateRules,
    reflect,
    reflecting_generator,
)
from routedk.programs.teachers.rule_merging import merge_rules
from routedk.programs.teachers.thought_distiller import NameIntents, guiding_rules, think
from routedk.programs.usage import Usage
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, Session, Thought

_RULE_PROMPTS = (GenerateBundles, StateCauses, StateRules)
_THOUGHT_PROMPTS = (NameIntents,)


def lm_knowledge(sessions: Sequence[Session], config: DistillConfig, asker: Asker) -> KnowledgeBase:
    """Distill with a language model: mistakes into rules, gold into thoughts.

    Formats build on each other: patterns, counted from gold, are evidence for rules; rules are
    shown where thoughts are made.

    Args:
        sessions: Training sessions with gold; nothing else is looked at.
        config: Which formats, how many, and how they feed each other.
        asker: Asks the teacher, and holds which sessions were left out.

    Raises:
        RouteDKError: The teacher refuses every session.
        LMError: It failed in a way that would affect every session.

    Source: three formats, progressively distilled: arXiv 2504.17220.
    """
    patterns = mine_patterns(sessions, config)
    evidence = patterns if config.patterns_feed_rules else ()
    stated = _rules(sessions, evidence, asker) if "rule" in config.formats else []
    rules = merge_rules(stated, limit=config.max_rules)
    shown = [rule.text for rule in rules] if config.rules_feed_thoughts else []
    return KnowledgeBase(
        patterns=patterns if "pattern" in config.formats else (),
        rules=rules,
        thoughts=_thoughts(sessions, shown, asker) if "thought" in config.formats else (),
    )


def _rules(sessions: Sequence[Session], patterns: Sequence[Pattern], asker: Asker) -> list[Rule]:
    stated = []
    call = partial(reflect, generator=reflecting_generator(patterns))
    for session, texts, usage in asker.ask("rule", call, sessions):
        source = _provenance(asker.lm, session, _RULE_PROMPTS, usage, max(1, len(texts)))
        stated += [Rule(text=text, provenance=source) for text in texts]
    return stated


def _thoughts(
    sessions: Sequence[Session], rules: Sequence[str], asker: Asker
) -> tuple[Thought, ...]:
    thoughts = []
    for session, text, usage in asker.ask(
        "thought", partial(think, rules=guiding_rules(rules)), sessions
    ):
        source = _provenance(asker.lm, session, _THOUGHT_PROMPTS, usage)
        thoughts.append(Thought(session_id=session.id, text=text, provenance=source))
    return tuple(thoughts)


def _provenance(
    lm: Any, session: Session, prompts: Sequence[Any], usage: Usage, shares: int = 1
) -> Provenance:
    """The provenance of one of several pieces from the same calls, which share the cost."""
    cost = price_of(lm, usage.input_tokens, usage.output_tokens)
    return Provenance(
        teacher=lm.model,
        sessions=(session.id,),
        prompt_hash=hashlib.sha256(repr(prompts).encode()).hexdigest()[:16],
        tokens=(usage.input_tokens + usage.output_tokens) // shares,
        cost=None if cost is None else round(cost / shares, 8),
    )
