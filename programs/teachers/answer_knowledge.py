"""Knowledge from a teacher's answers, without gold: patterns, rules and thoughts."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import dspy

from routedk.programs.prompting.item_intents import (
    compose_bundles,
    render_item_intents,
    split_intents,
)
from routedk.programs.prompting.layout import render_answer, render_items
from routedk.programs.prompting.plain_text import ask
from routedk.programs.prompting.text import RULE_WORDS, neutralise
from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.patterns import mine_patterns
from routedk.programs.teachers.rule_distiller import read_rules
from routedk.types import KnowledgeBase, Pattern, Rule, Session, TeacherAnswer, Thought, bundle_sets

_SAMPLE = 40


class StateGeneralRules(dspy.Signature):  # type: ignore[misc]
    """You grouped the items of shopping sessions into bundles, sets of items that serve one
    intent. State the general rules that you followed, for grouping the items of other sessions:
    what belongs together, what does not, and when nothing does. A rule is one short sentence about
    kinds of items or intents. It names no item number."""

    answers: str = dspy.InputField(desc="Sessions with your answers, item numbers and intent")
    most: str = dspy.InputField(desc="Most rules")
    rules: str = dspy.OutputField(desc="The rules, one a line, the most general first")


@dataclass(frozen=True, slots=True)
class AnswerSample:
    """Sessions with a teacher's bundles, from which it states rules.

    Args:
        id: Name of the sample in messages.
        sessions: Labelled sessions.
    """

    id: str
    sessions: tuple[Session, ...]

    @classmethod
    def of(cls, sessions: Sequence[Session], seed: int) -> "AnswerSample":
        """A random sample of at most forty of the sessions, in their order."""
        places = random.Random(seed).sample(range(len(sessions)), min(_SAMPLE, len(sessions)))
        taken = tuple(sessions[place] for place in sorted(places))
        return cls(f"{len(taken)} answers", taken)


def state_rules(sample: AnswerSample, limit: int) -> list[str]:
    """The rules that a teacher, the LM of the ``dspy.context``, sees in its own answers."""
    shown = (
        f"Session:\n{render_items(session)}\nBundles:\n{render_answer(session, session.bundles)}"
        for session in sample.sessions
        if session.bundles is not None
    )
    stated = ask(dspy.Predict(StateGeneralRules), answers="\n\n".join(shown), most=str(limit))
    return read_rules(stated)[:limit]


def knowledge_of_answers(
    sessions: Sequence[Session],
    answers: Sequence[TeacherAnswer],
    rules: Sequence[Rule],
    config: DistillConfig,
) -> KnowledgeBase:
    """The knowledge in a teacher's answers; no language model is asked.

    Args:
        sessions: The sessions of the answers, except for answers that bring their own items.
        answers: The teacher's answers.
        rules: The teacher's rules, the most important first.
        config: Which formats, and how many.
    """
    labelled = answered_sessions(sessions, answers)
    patterns: tuple[Pattern, ...] = ()
    if config.makes("pattern") and answers:
        teachers = dict.fromkeys(answer.provenance.teacher for answer in answers)
        patterns = mine_patterns(labelled, config, teacher=" + ".join(teachers))
    thoughts = map(_thought, labelled, answers) if config.makes("thought") else ()
    return KnowledgeBase(
        patterns=patterns,
        rules=tuple(rules[: config.max_rules]) if config.makes("rule") else (),
        thoughts=tuple(thought for thought in thoughts if thought is not None),
        answers=tuple(answers) if config.makes("answer") else (),
    )


def answered_sessions(
    sessions: Sequence[Session], answers: Sequence[TeacherAnswer]
) -> list[Session]:
    """The sessions of the answers, in their order, with the answers' bundles instead of gold."""
    known: Mapping[str, Session] = {session.id: session for session in sessions}
    return [
        Session(answer.session_id, answer.items, answer.bundles)
        if answer.items
        else replace(known[answer.session_id], bundles=answer.bundles)
        for answer in answers
    ]


def _thought(session: Session, answer: TeacherAnswer) -> Thought | None:
    """Each item's intent and why; None if that implies bundles other than the answer's.

    An item in no bundle has no intent. A bundled item for which the teacher named none has its
    bundle's.
    """
    intents = []
    for item in session.items:
        own = [bundle.intent for bundle in answer.bundles if item.id in bundle.items]
        stated = answer.item_intents.get(item.id, "") if own else ""
        intents.append(split_intents(stated) or split_intents(" / ".join(own)))
    if {b.items for b in compose_bundles(intents, session)} != set(bundle_sets(answer.bundles)):
        return None
    whys = (neutralise(bundle.why, RULE_WORDS).replace(";", ",") for bundle in answer.bundles)
    why = " ".join(filter(None, whys))
    text = render_item_intents(intents) + (f"; why: {why}" if why else "")
    # The cost is already recorded with the answer.
    source = replace(answer.provenance, tokens=0, cost=0.0)
    return Thought(session_id=session.id, text=text, provenance=source)
