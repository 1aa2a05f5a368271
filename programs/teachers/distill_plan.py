"""What a language model will be asked while it distils, before it is asked anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from routedk.programs.generator import BundleGenerator
from routedk.programs.journal.budget import estimate_calls
from routedk.programs.journal.journal import Tally
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import Message, render_answer, render_items, render_patterns
from routedk.programs.prompting.plain_text import PlainText
from routedk.programs.teachers.feedback import render_feedback, session_verdicts
from routedk.programs.teachers.rule_distiller import StateCauses, StateRules
from routedk.programs.teachers.teacher import Format
from routedk.programs.teachers.thought_distiller import NameIntents
from routedk.types import Pattern, Session

# Typical sizes of answers in tokens, for models that answer as they are asked to.
_ANSWER_TOKENS: Mapping[str, int] = {
    "score": 40,
    "bundle": 40,
    "state causes": 150,
    "state rules": 90,
    "name intents": 60,
    "name them again": 60,
}
_CAUSES = "A sentence about what misled the answer stands here. " * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """The calls of one step.

    Args:
        name: What the teacher does in it.
        certain: Whether every session needs it; else only those with a mistake.
        expected: Calls, tokens and cost if every session comes to it.
    """

    name: str
    certain: bool
    expected: Tally


def plan_calls(
    model: str,
    sessions: Sequence[Session],
    formats: Sequence[Format],
    patterns: Sequence[Pattern] = (),
    scored: Sequence[Session] = (),
) -> list[PlannedStep]:
    """The steps of an LM teacher, with what they will come to.

    Prompts are rendered as they will be, but for what earlier answers put into them.

    Args:
        model: LiteLLM's name of the model.
        sessions: Sampled training sessions with gold.
        formats: Kinds of knowledge to make.
        patterns: Patterns that rules are made with.
        scored: Sessions that are answered before, to tell which are difficult.
    """
    requests: dict[str, list[list[Message]]] = {}
    if scored:
        requests["score"] = [BundleGenerator().messages(session) for session in scored]
    if "rule" in formats:
        known = CompiledKnowledge(patterns=tuple(patterns), patterns_shown=5 if patterns else None)
        generator = BundleGenerator(known)
        requests["bundle"] = [generator.messages(session) for session in sessions]
        requests["state causes"] = [_causes(session, known) for session in sessions]
        requests["state rules"] = [_rules(session, known) for session in sessions]
    if "thought" in formats:
        requests["name intents"] = [_intents(session, "") for session in sessions]
        requests["name them again"] = [_intents(session, _CAUSES[:60]) for session in sessions]
    return [
        PlannedStep(
            name=name,
            certain=name in ("score", "bundle", "name intents"),
            expected=estimate_calls(model, asked, output_tokens=_ANSWER_TOKENS[name]),
        )
        for name, asked in requests.items()
    ]


def _causes(session: Session, known: CompiledKnowledge) -> list[Message]:
    shown = {
        "patterns": render_patterns(known.context(session).patterns),
        "session": render_items(session),
        "answer": render_answer(session, session.bundles or ()),
        "feedback": render_feedback(session, session_verdicts(session, ())),
    }
    return PlainText().format(StateCauses, [], shown)


def _rules(session: Session, known: CompiledKnowledge) -> list[Message]:
    patterns = render_patterns(known.context(session).patterns)
    return PlainText().format(StateRules, [], {"patterns": patterns, "causes": _CAUSES})


def _intents(session: Session, problem: str) -> list[Message]:
    shown = {
        "session": render_items(session),
        "bundles": render_answer(session, session.bundles or ()),
        "earlier": "1 an intent; " * len(session.items) if problem else "",
        "problem": problem,
    }
    return PlainText().format(NameIntents, [], shown)
