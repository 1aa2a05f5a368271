"""The LM teacher: patterns from annotations, rules and thoughts from any ``dspy.LM``."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from routedk.errors import RouteDKError
from routedk.programs.journal.budget import price_of
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.teachers.ask_each import OnStep, ask_each
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

logger = logging.getLogger(__name__)

_RULE_PROMPTS = (GenerateBundles, StateCauses, StateRules)
_THOUGHT_PROMPTS = (NameIntents,)


@dataclass(kw_only=True)
class DistillReport:
    """What happened while an LM teacher distilled.

    Args:
        kinds: How many bundles the teacher stated of each kind of `routedk.eval.mistakes`, and
            how many answers could not be read (``unparsable``).
        stated_rules: Rules before they were merged.
        retried_thoughts: Thoughts that were wrong at first.
        dropped_thoughts: Thoughts that were wrong again: by session id, what was wrong.
        quarantined: Sessions left out of a step because its answers could not be had, each with
            ``session_id``, ``step`` and ``error``.
        stopped: Why calls were not made; empty where all were.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    stated_rules: int = 0
    retried_thoughts: int = 0
    dropped_thoughts: dict[str, str] = field(default_factory=dict)
    quarantined: list[dict[str, str]] = field(default_factory=list)
    stopped: str = ""


class LMTeacher:
    """Distills with a language model: mistakes into rules, gold into thoughts.

    Formats build on each other: patterns, counted from gold, are evidence for rules; rules are
    shown where thoughts are made. An error that concerns one session quarantines it. Where the
    budget is exhausted no further call is made, and what could be made without is returned.

    Args:
        lm: The teacher.
        config: Which formats, how many, and how they feed each other.
        on_step: Called from any thread after each session of a step, ``rule`` or ``thought``.

    Attributes:
        report: What happened.

    Source: three formats, progressively distilled: arXiv 2504.17220.
    """

    def __init__(self, lm: Any, config: DistillConfig, on_step: OnStep | None = None) -> None:
        self._lm = lm
        self._config = config
        self._on_step = on_step
        self.report = DistillReport()

    def distill(self, sessions: Sequence[Session]) -> KnowledgeBase:
        """Make the formats of the config.

        Args:
            sessions: Training sessions with gold; nothing else is looked at.

        Raises:
            RouteDKError: Every session failed.
            LMError: The language model failed in a way that would meet every session.
        """
        formats = self._config.formats
        patterns = mine_patterns(sessions, self._config)
        evidence = patterns if self._config.patterns_feed_rules else ()
        rules = self._rules(sessions, evidence) if "rule" in formats else ()
        shown = [rule.text for rule in rules] if self._config.rules_feed_thoughts else []
        return KnowledgeBase(
            patterns=patterns if "pattern" in formats else (),
            rules=rules,
            thoughts=self._thoughts(sessions, shown) if "thought" in formats else (),
        )

    def _rules(self, sessions: Sequence[Session], patterns: Sequence[Pattern]) -> tuple[Rule, ...]:
        generator = reflecting_generator(patterns)
        answers = self._each("rule", partial(reflect, generator=generator), sessions)
        kinds: Counter[str] = Counter()
        stated: list[Rule] = []
        for session, (texts, mistakes), usage in answers:
            kinds.update(mistakes)
            source = self._provenance(session, _RULE_PROMPTS, usage, max(1, len(texts)))
            stated += [Rule(text=text, provenance=source) for text in texts]
        self.report.kinds = dict(sorted(kinds.items()))
        self.report.stated_rules = len(stated)
        return merge_rules(stated, limit=self._config.max_rules)

    def _thoughts(self, sessions: Sequence[Session], rules: Sequence[str]) -> tuple[Thought, ...]:
        answers = self._each("thought", partial(think, rules=guiding_rules(rules)), sessions)
        thoughts = []
        for session, (text, problem, attempts), usage in answers:
            self.report.retried_thoughts += attempts > 1
            if problem:
                self.report.dropped_thoughts[session.id] = problem
                continue
            source = self._provenance(session, _THOUGHT_PROMPTS, usage)
            thoughts.append(Thought(session_id=session.id, text=text, provenance=source))
        return tuple(thoughts)

    def _each(
        self, step: str, call: Callable[[Session], Any], sessions: Sequence[Session]
    ) -> list[tuple[Session, Any, Usage]]:
        threads, on_step = self._config.threads, self._on_step
        asked = ask_each(step, call, sessions, self._lm, threads=threads, on_step=on_step)
        if sessions and len(asked.failed) == len(sessions):
            name, why = min(asked.failed.items())
            raise RouteDKError(
                f"{step}s: all {len(sessions)} sessions failed, e.g. {name!r}: {why}"
            )
        for name, why in sorted(asked.failed.items()):
            logger.warning("session %s is left out of %ss: %s", name, step, why)
            self.report.quarantined.append({"session_id": name, "step": step, "error": why})
        if asked.stopped:
            logger.warning("not all calls for %ss were made: %s", step, asked.stopped)
            self.report.stopped = asked.stopped
        return asked.answers

    def _provenance(
        self, session: Session, prompts: Sequence[Any], usage: Usage, shares: int = 1
    ) -> Provenance:
        """Of one of several pieces that the session's calls made: they share the cost."""
        cost = price_of(self._lm, usage.input_tokens, usage.output_tokens)
        return Provenance(
            teacher=self._lm.model,
            sessions=(session.id,),
            prompt_hash=hashlib.sha256(repr(prompts).encode()).hexdigest()[:16],
            tokens=(usage.input_tokens + usage.output_tokens) // shares,
            cost=None if cost is None else round(cost / shares, 8),
        )
