"""Rules by self-reflection: a teacher bundles, sees its mistakes, states causes, then rules."""

import re
from collections.abc import Sequence

import dspy
from dspy.utils.exceptions import AdapterParseError

from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import render_answer, render_items, render_patterns
from routedk.programs.prompting.plain_text import PlainText
from routedk.programs.prompting.text import RULE_WORDS, neutralise
from routedk.programs.teachers.feedback import render_feedback, session_verdicts
from routedk.types import Pattern, Session

_PATTERNS_SHOWN = 5
_RULES_OF_A_SESSION = 3
_LEAST_WORDS = 4
_BULLET = re.compile(r"^(?:[-*•]|\(?\d{1,2}[.):])\s*")
# What models write around a list, and instead of one.
_TALK = re.compile(
    r"(here (are|is)|sure|certainly|of course|sorry|i (hope|can|cannot|can't|am|will)|as an ai|"
    r"let me|note that|the (above|following)|these (rules|are))\b",
    re.IGNORECASE,
)
_ANSWER_LINE = re.compile(r"\W*\d+(?:[ ,]+\d+)*\s*\|")
# What a rule says must hold for other sessions, where the numbers are other items'.
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


class RuleDistiller(dspy.Module):  # type: ignore[misc]
    """Takes a session with gold, gives the rules that its teacher's mistakes teach.

    The teacher is the LM of the surrounding ``dspy.context``. It bundles the session; its
    bundles are judged by gold (`routedk.eval.mistakes`), which is never shown; it states causes
    of its mistakes, and rules that follow from the causes. A session without a mistake ends after
    the first call. The prediction has ``rules`` (at most three sentences, neutralised), ``kinds``
    (of each stated bundle, ``unparsable`` for an answer without any) and ``causes``.

    Args:
        patterns: Evidence; the teacher sees those nearest to the session in words.

    Source: the kinds of mistakes and self-reflection, AICL, arXiv 2312.16262; rules as
    distilled knowledge, arXiv 2504.17220. The wording of the prompts is ours.
    """

    def __init__(self, patterns: Sequence[Pattern] = ()) -> None:
        super().__init__()
        self._knowledge = CompiledKnowledge(
            patterns=tuple(patterns), patterns_shown=_PATTERNS_SHOWN if patterns else None
        )
        self.generator = BundleGenerator(self._knowledge)
        self.causes = dspy.Predict(StateCauses)
        self.rules = dspy.Predict(StateRules)

    def forward(self, session: Session) -> dspy.Prediction:
        """Distill one session with gold."""
        answer = self.generator(session=session)
        verdicts = session_verdicts(session, answer.bundles, answer.lone)
        kinds: list[str] = [v.kind for v in verdicts] or (["unparsable"] if answer.error else [])
        right = all(kind == "correct" for kind in kinds) and len(kinds) == len(set(session.gold))
        causes = rules = ""
        if not right:
            patterns = render_patterns(self._knowledge.context(session).patterns)
            try:
                with dspy.context(adapter=PlainText()):
                    causes = self.causes(
                        patterns=patterns,
                        session=render_items(session),
                        answer=render_answer(session, answer.bundles),
                        feedback=render_feedback(session, verdicts),
                    ).causes
                    rules = self.rules(patterns=patterns, causes=causes).rules
            except AdapterParseError:
                # An empty completion: the teacher has nothing to say about this session.
                rules = ""
        stated = read_rules(rules)[:_RULES_OF_A_SESSION]
        return dspy.Prediction(rules=stated, kinds=kinds, causes=causes)


def read_rules(text: str) -> list[str]:
    """The rules in a teacher's answer: its lines without bullets, neutralised, none twice.

    No rules are lines of fewer than four words, lines that name an item number, lines of an
    answer, and what models say around a list.
    """
    found = []
    for line in text.splitlines():
        rule = neutralise(_BULLET.sub("", line.strip().strip("*_ ")).strip("*_ "), RULE_WORDS)
        talk = line.rstrip().endswith(":") or _ANSWER_LINE.match(line) or _TALK.match(rule)
        if len(rule.split()) >= _LEAST_WORDS and not talk and not _ITEM_NUMBER.search(rule):
            found.append(rule)
    return list(dict.fromkeys(found))
