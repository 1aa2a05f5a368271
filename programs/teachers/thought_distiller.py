"""Thoughts, given gold: a teacher names each item's intent, which must imply the gold bundles."""

from collections import Counter
from collections.abc import Sequence

import dspy

from routedk.errors import AnswerError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.item_intents import (
    compose_bundles,
    read_entries,
    read_item_intents,
    render_item_intents,
)
from routedk.programs.prompting.layout import (
    THOUGHT_PREFIX,
    render_answer,
    render_items,
    render_rules,
)
from routedk.programs.prompting.plain_text import ask
from routedk.programs.teachers.feedback import item_numbers
from routedk.types import Session

_RULES_SHOWN = 3
_ATTEMPTS = 2


class NameIntents(dspy.Signature):  # type: ignore[misc]
    """A shopper's session was grouped into bundles; its items and the bundles are given. Say
    which intent each item serves, in at most four words that would fit other sessions, too.
    Items of one bundle have exactly the same words; items of different bundles, and items
    outside all bundles, have different ones; an item of two bundles names both, with a slash
    between them. Name every item once, by its number, in order."""

    rules: str = dspy.InputField(desc="Rules that hold for many sessions")
    session: str = dspy.InputField(desc="Items")
    bundles: str = dspy.InputField(desc="Bundles, item numbers and intent")
    earlier: str = dspy.InputField(desc="Your earlier answer")
    problem: str = dspy.InputField(desc="What was wrong with it")
    thought: str = dspy.OutputField(
        desc="One line such as: 1 brewing tea; 2 brewing tea; 3 desk light"
    )


def guiding_rules(rules: Sequence[str]) -> CompiledKnowledge:
    """Rules for `think`; a teacher sees those nearest to the session by TF-IDF."""
    return CompiledKnowledge(rules=tuple(rules), rules_shown=_RULES_SHOWN if rules else None)


def think(session: Session, rules: CompiledKnowledge) -> str:
    """The thought that leads to a session's gold bundles.

    The teacher is the LM of the surrounding ``dspy.context``, and is shown the gold. A thought is
    checked (`problem_of`): it must name every item of the session and nothing else, and imply
    exactly the gold bundles. A wrong one is retried once; the teacher is told what was wrong.

    Args:
        session: A session with gold.
        rules: See `guiding_rules`.

    Raises:
        AnswerError: The second one is wrong, too.

    Source: thoughts as distilled knowledge, arXiv 2504.17220; their form, which can be checked,
    is ours (`routedk.programs.prompting.item_intents`).
    """
    shown = {
        "rules": render_rules(rules.context(session).rules),
        "session": render_items(session),
        "bundles": render_answer(session, session.bundles or ()),
    }
    earlier = problem = ""
    for _ in range(_ATTEMPTS):
        answer = ask(dspy.Predict(NameIntents), **shown, earlier=earlier, problem=problem)
        earlier = answer.removeprefix(THOUGHT_PREFIX).strip()
        problem = problem_of(earlier, session)
        if not problem:
            return render_item_intents(read_item_intents(earlier, len(session.items)))
    raise AnswerError(f"the thought is wrong: {problem}")


def problem_of(thought: str, session: Session) -> str:
    """Describe what is wrong with a thought; empty if nothing is.

    Args:
        thought: As a teacher wrote it.
        session: Its session, with gold.
    """
    total = len(session.items)
    entries = list(read_entries(thought))
    if unread := [entry for entry in entries if isinstance(entry, str)]:
        return f"{unread[0][:60]!r} is not an item number with its intent"
    named = Counter(entry[0] for entry in entries)
    for number in sorted({*named, *range(1, total + 1)}):
        if number > total:
            return f"there is no item {number}: the session has {total}"
        if named[number] != 1:
            return f"item {number} is named {named[number]} times: name every item once"
    composed = {b.items for b in compose_bundles(read_item_intents(thought, total), session)}
    for gold in session.gold:
        if gold not in composed:
            numbers = item_numbers(session, gold)
            return f"{numbers} are a bundle: give them, and only them, one intent"
    if extra := composed.difference(session.gold):
        numbers = min(item_numbers(session, bundle) for bundle in extra)
        return f"{numbers} are no bundle: they must not share an intent"
    return ""
