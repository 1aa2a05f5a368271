"""The LM teacher: its answers, and its rules and thoughts from gold or from these answers."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from routedk.programs.journal.budget import price_of
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.teachers.answer_distiller import StateBundles, state_bundles
from routedk.programs.teachers.answer_knowledge import (
    AnswerSample,
    StateGeneralRules,
    answered_sessions,
    knowledge_of_answers,
    state_rules,
)
from routedk.programs.teachers.asker import Asker
from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.patterns import mine_patterns
from routedk.programs.teachers.rule_distiller import (
    StateCauses,
    StateRules,
    merge_rules,
    reflect,
    reflecting_generator,
)
from routedk.programs.teachers.thought_distiller import NameIntents, guiding_rules, think
from routedk.programs.usage import Usage
from routedk.types import KnowledgeBase, Provenance, Rule, Session, TeacherAnswer, Thought


def lm_knowledge(sessions: Sequence[Session], config: DistillConfig, asker: Asker) -> KnowledgeBase:
    """Distill with a language model: mistakes into rules, gold into thoughts.

    Formats build on each other: patterns, mined from gold, are evidence for rules; rules are
    shown when thoughts are made. If no session has gold bundles, the teacher answers every
    session, and patterns, rules and thoughts are made from its answers. It never sees gold when
    it answers.

    Args:
        sessions: Training sessions, the only input.
        config: Which formats, how many, and how they feed each other.
        asker: Asks the teacher, and records which sessions were left out.

    Raises:
        RouteDKError: The teacher refuses every session.
        LMError: It failed in a way that would affect every session.

    Source: three formats, progressively distilled: arXiv 2504.17220.
    """
    annotated = [session for session in sessions if session.bundles is not None]
    if not any(session.bundles for session in annotated):
        answers = _answers(sessions, asker)
        own: Sequence[Rule] = ()
        if answers and config.max_rules and config.makes("rule"):
            sample = AnswerSample.of(answered_sessions(sessions, answers), config.seed)
            call = partial(state_rules, limit=config.max_rules)
            own = _rules(asker, call, [sample], (StateGeneralRules,))
        return knowledge_of_answers(sessions, answers, own, config)
    patterns = mine_patterns(annotated, config)
    stated: Sequence[Rule] = ()
    if config.makes("rule"):
        shown = patterns if config.patterns_feed_rules else ()
        reflecting = partial(reflect, generator=reflecting_generator(shown))
        stated = _rules(asker, reflecting, annotated, (GenerateBundles, StateCauses, StateRules))
    rules = merge_rules(stated, limit=config.max_rules)
    guides = [rule.text for rule in rules] if config.rules_feed_thoughts else []
    return KnowledgeBase(
        patterns=patterns if config.makes("pattern") else (),
        rules=rules,
        thoughts=_thoughts(annotated, guides, asker) if config.makes("thought") else (),
        answers=_answers(sessions, asker) if "answer" in config.formats else (),
    )


def _answers(sessions: Sequence[Session], asker: Asker) -> tuple[TeacherAnswer, ...]:
    answers = []
    for session, stated, usage in asker.ask("answer", state_bundles, sessions):
        asker.dropped += [{"session_id": session.id, "dropped": what} for what in stated.dropped]
        answers.append(
            TeacherAnswer(
                session_id=session.id,
                bundles=stated.bundles,
                item_intents=stated.item_intents,
                provenance=_provenance(asker.lm, [session], (StateBundles,), usage),
            )
        )
    return tuple(answers)


def _rules(
    asker: Asker,
    call: Callable[[Any], list[str]],
    asked: Sequence[Session | AnswerSample],
    prompts: Sequence[Any],
) -> list[Rule]:
    """The rules that the teacher states from each session, or from a sample of its answers."""
    stated = []
    for one, texts, usage in asker.ask("rule", call, asked):
        sessions = one.sessions if isinstance(one, AnswerSample) else [one]
        source = _provenance(asker.lm, sessions, prompts, usage, max(1, len(texts)))
        stated += [Rule(text=text, provenance=source) for text in texts]
    return stated


def _thoughts(
    sessions: Sequence[Session], rules: Sequence[str], asker: Asker
) -> tuple[Thought, ...]:
    thoughts = []
    for session, text, usage in asker.ask(
        "thought", partial(think, rules=guiding_rules(rules)), sessions
    ):
        source = _provenance(asker.lm, [session], (NameIntents,), usage)
        thoughts.append(Thought(session_id=session.id, text=text, provenance=source))
    return tuple(thoughts)


def _provenance(
    lm: Any, sessions: Sequence[Session], prompts: Sequence[Any], usage: Usage, shares: int = 1
) -> Provenance:
    """The provenance of one of several pieces from the same calls, which share the cost."""
    cost = price_of(lm, usage.input_tokens, usage.output_tokens)
    return Provenance(
        teacher=lm.model,
        sessions=tuple(session.id for session in sessions),
        prompt_hash=hashlib.sha256(repr(prompts).encode()).hexdigest()[:16],
        tokens=(usage.input_tokens + usage.output_tokens) // shares,
        cost=None if cost is None else round(cost / shares, 8),
    )
