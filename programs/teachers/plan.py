"""What an LM teacher will be asked, before it is asked anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from routedk.programs.generator import BundleGenerator
from routedk.programs.journal.budget import Tally, price
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import Message, render_answer, render_items, render_patterns
from routedk.programs.prompting.plain_text import PlainText
from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.feedback import render_feedback, session_verdicts
from routedk.programs.teachers.patterns import mine_patterns
from routedk.programs.teachers.rule_distiller import RuleDistiller, StateCauses, StateRules
from routedk.programs.teachers.thought_distiller import NameIntents
from routedk.types import Session

# OpenAI's rule of thumb for English; used where the model's tokenizer is not known.
_CHARACTERS_PER_TOKEN = 4
# Typical sizes of answers in tokens, for models that answer as they are asked to.
_ANSWER_TOKENS: Mapping[str, int] = {
    "score": 40,
    "bundle": 40,
    "state causes": 150,
    "state rules": 90,
    "name intents": 60,
    "name them again": 60,
}
_EVERY_SESSION = ("score", "bundle", "name intents")
_CAUSES = "A sentence about what misled the answer stands here. " * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """The calls of one step.

    Args:
        name: What the teacher does in it.
        certain: Whether every session needs it; otherwise only those with a mistake.
        expected: Calls, tokens and cost if every session comes to it.
    """

    name: str
    certain: bool
    expected: Tally


def plan_calls(
    config: DistillConfig, sessions: Sequence[Session], scored: Sequence[Session] = ()
) -> list[PlannedStep]:
    """The steps of an LM teacher, with what they will come to.

    Prompts are rendered as they will be, except for what earlier answers put into them.

    Args:
        config: All settings.
        sessions: Sampled training sessions with gold.
        scored: Sessions that are answered first, to tell which are difficult.
    """
    requests: dict[str, list[list[Message]]] = {}
    if scored:
        requests["score"] = [BundleGenerator().messages(session) for session in scored]
    if "rule" in config.formats:
        patterns = (
            mine_patterns(sessions, min_support=config.min_support, limit=config.max_patterns)
            if config.patterns_feed_rules
            else ()
        )
        distiller = RuleDistiller(patterns)
        knowledge = distiller.generator.knowledge
        requests["bundle"] = [distiller.generator.messages(session) for session in sessions]
        requests["state causes"] = [_causes(session, knowledge) for session in sessions]
        requests["state rules"] = [_rules(session, knowledge) for session in sessions]
    if "thought" in config.formats:
        requests["name intents"] = [_intents(session, "") for session in sessions]
        requests["name them again"] = [_intents(session, _CAUSES[:60]) for session in sessions]
    return [
        PlannedStep(
            name=name,
            certain=name in _EVERY_SESSION,
            expected=estimate_calls(config.teacher, asked, output_tokens=_ANSWER_TOKENS[name]),
        )
        for name, asked in requests.items()
    ]


def estimate_calls(
    model: str, requests: Sequence[Sequence[Message]], *, output_tokens: int
) -> Tally:
    """What calls will come to, without making them.

    Prompts are counted by LiteLLM where it has a price for the model, else at four characters
    a token.

    Args:
        model: LiteLLM's name of the model.
        requests: The messages of each call.
        output_tokens: Tokens of a typical answer.
    """
    known = price(model, 1, 1) is not None
    read = sum(_prompt_tokens(model, messages, known) for messages in requests)
    written = len(requests) * output_tokens
    return Tally(
        calls=len(requests),
        input_tokens=read,
        output_tokens=written,
        cost=price(model, read, written),
    )


def _prompt_tokens(model: str, messages: Sequence[Message], known: bool) -> int:
    if not known:
        characters = sum(len(message["content"]) for message in messages)
        return -(-characters // _CHARACTERS_PER_TOKEN)
    import litellm

    return int(litellm.token_counter(model=model, messages=list(messages)))


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
