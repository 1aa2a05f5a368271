"""Rules by self-reflection: a teacher bundles, sees its mistakes, states causes, then rules."""

import re
from collections.abc import Sequence

import dspy
import numpy as np

from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import render_answer, render_items, render_patterns
from routedk.programs.prompting.plain_text import ask
from routedk.programs.prompting.text import RULE_WORDS, neutralise
from routedk.programs.teachers.accumulate import joint_provenance
from routedk.programs.teachers.feedback import render_feedback, session_verdicts
from routedk.similarity.dendrogram import Dendrogram
from routedk.similarity.encoders import default_encoder, meanings
from routedk.types import Pattern, Rule, Session

_PATTERNS_SHOWN = 5
_RULES_OF_A_SESSION = 3
_LEAST_WORDS = 4
# Average cosine distance up to which two rules count as saying the same.
_SAME_RULE = 0.25
_BULLET = re.compile(r"^(?:[-*•]|\(?\d{1,2}[.):])\s*")
# What models write around a list, or instead of one.
_TALK = re.compile(
    r"(here (are|is)|sure|certainly|of course|sorry|i (hope|can|cannot|can't|am|will)|as an ai|"
    r"let me|note that|the (above|following)|these (rules|are))\b",
    re.IGNORECASE,
)
_ANSWER_LINE = re.compile(r"\W*\d+(?:[ ,]+\d+)*\s*\|")
# A rule must hold for other sessions, in which the numbers refer to other items.
_ITEM_NUMBER = re.compile(r"\bitems?\s+#?\d|\bbundle\s+#?\d|#\d", re.IGNORECASE)


class StateCauses(dspy.Signature):  # type: ignore[misc]
    """You grouped the items of a shopping session into bundles, sets of items that serve one
    intent. Compare your answer with the feedback and say why each mistake was made: what about
    the items misled you, and what should have been looked at."""

    patterns: str = dspy.InputField(desc="Evidence from many sessions")
    session: str = dspy.InputField(desc="Items")
    answer: str = dspy.InputField(desc="Your answer, item numbers and intent")
    feedback: str = dspy.InputField(desc="Feedback")
    causes: str = dspy.OutputField(desc="Causes of the mistakes, in short sentences")


class StateRules(dspy.Signature):  # type: ignore[misc]
    """Turn causes of mistakes into general rules for grouping the items of other shopping
    sessions into bundles. A rule is one short sentence about kinds of items or intents. It names
    no item number."""

    patterns: str = dspy.InputField(desc="Evidence from many sessions")
    causes: str = dspy.InputField(desc="Causes of mistakes")
    rules: str = dspy.OutputField(desc="At most three rules, one a line")


def reflecting_generator(patterns: Sequence[Pattern]) -> BundleGenerator:
    """The program that bundles sessions for `reflect`, shown the patterns nearest to each."""
    shown = _PATTERNS_SHOWN if patterns else None
    return BundleGenerator(CompiledKnowledge(patterns=tuple(patterns), patterns_shown=shown))


def reflect(session: Session, generator: BundleGenerator) -> list[str]:
    """The rules that follow from a teacher's mistakes on one session.

    The teacher is the LM of the surrounding ``dspy.context``. It bundles the session; its
    bundles are judged against gold (`routedk.eval.mistakes`), which is shown only as feedback; it
    states the causes of its mistakes, and rules that follow from them. A session without a mistake
    ends after the first call.

    Args:
        session: A session with gold.
        generator: See `reflecting_generator`.

    Returns:
        At most three rules, neutralized.

    Source: the kinds of mistakes and self-reflection, AICL, arXiv 2312.16262; rules as
    distilled knowledge, arXiv 2504.17220. The wording of the prompts is ours.
    """
    answer = generator(session=session)
    verdicts = session_verdicts(session, answer.bundles, answer.lone)
    correct = [verdict.gold for verdict in verdicts if verdict.kind == "correct"]
    if not answer.error and len(verdicts) == len(correct) == len(set(session.gold)):
        return []
    patterns = render_patterns(generator.knowledge.context(session).patterns)
    causes = ask(
        dspy.Predict(StateCauses),
        patterns=patterns,
        session=render_items(session),
        answer=render_answer(session, answer.bundles),
        feedback=render_feedback(session, verdicts),
    )
    stated = ask(dspy.Predict(StateRules), patterns=patterns, causes=causes) if causes else ""
    return read_rules(stated)[:_RULES_OF_A_SESSION]


def read_rules(text: str) -> list[str]:
    """The rules in a teacher's answer: its lines without bullets, neutralized, deduplicated.

    Lines of fewer than four words, lines that name an item number, lines of an answer, and what
    models say around a list are not rules.
    """
    found = []
    for line in text.splitlines():
        rule = neutralise(_BULLET.sub("", line.strip().strip("*_ ")).strip("*_ "), RULE_WORDS)
        talk = line.rstrip().endswith(":") or _ANSWER_LINE.match(line) or _TALK.match(rule)
        if len(rule.split()) >= _LEAST_WORDS and not talk and not _ITEM_NUMBER.search(rule):
            found.append(rule)
    return list(dict.fromkeys(found))


def merge_rules(rules: Sequence[Rule], *, limit: int) -> tuple[Rule, ...]:
    """Merge rules that say the same and keep those that come from most sessions.

    Rules are clustered by sentence embeddings (average linkage). A cluster's rule is the sentence
    most similar to the others; its provenance combines all of theirs, with costs summed.

    Args:
        rules: In a stable order, which breaks ties.
        limit: Maximum number of rules, at least 0.

    Returns:
        Rules by descending number of sessions.
    """
    if not rules:
        return ()
    rows = meanings([rule.text for rule in rules], default_encoder())
    # Rounding keeps ties ties, whatever the order of summation.
    cosines = (rows @ rows.T).clip(-1, 1).astype(np.float64).round(6)
    clusters = Dendrogram(range(len(rules)), 1 - cosines).cut(_SAME_RULE)
    alone = [{place} for place in set(range(len(rules))).difference(*clusters)]
    merged = []
    for places in sorted(sorted(cluster) for cluster in [*clusters, *alone]):
        likeness = cosines[np.ix_(places, places)].mean(axis=1).round(6)
        typical = rules[places[int(likeness.argmax())]]
        source = joint_provenance([rules[place].provenance for place in places])
        merged.append(Rule(text=typical.text, provenance=source))
    merged.sort(key=lambda rule: -len(rule.provenance.sessions))
    return tuple(merged[:limit])
