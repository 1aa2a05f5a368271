"""The LM teacher: patterns from annotations, rules and thoughts from any ``dspy.LM``."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeAlias

import dspy

from routedk.errors import RouteDKError
from routedk.programs.batch import call_all
from routedk.programs.journal.budget import BudgetError, price_of
from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.patterns import mine_patterns
from routedk.programs.teachers.rule_distiller import RuleDistiller
from routedk.programs.teachers.rule_merging import merge_rules
from routedk.programs.teachers.session_errors import is_session_error
from routedk.programs.teachers.thought_distiller import ThoughtDistiller
from routedk.programs.usage import Usage, metered
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, Session, Thought

# Called with the name of a step, how many of its sessions are done, and how many there are.
OnStep: TypeAlias = Callable[[str, int, int], None]
# US dollars of a call by its input and output tokens; None where unknown.
Price: TypeAlias = Callable[[int, int], float | None]


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
        price: US dollars of a call by its input and output tokens, None where unknown; by default
            LiteLLM's price of the teacher.
        on_step: Called from any thread after each session of a step, ``rule`` or ``thought``.

    Attributes:
        report: What happened.

    Source: three formats, progressively distilled: arXiv 2504.17220.
    """

    def __init__(
        self,
        lm: Any,
        config: DistillConfig,
        *,
        price: Price | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self._lm = lm
        self._config = config
        self._price = price or partial(price_of, lm)
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
        feeding = self._config.patterns_feed_rules
        patterns: tuple[Pattern, ...] = ()
        if "pattern" in formats or ("rule" in formats and feeding):
            patterns = mine_patterns(
                sessions,
                min_support=self._config.min_support,
                limit=self._config.max_patterns,
            )
        evidence = patterns if feeding else ()
        rules = self._rules(sessions, evidence) if "rule" in formats else ()
        shown = [rule.text for rule in rules] if self._config.rules_feed_thoughts else []
        return KnowledgeBase(
            patterns=patterns if "pattern" in formats else (),
            rules=rules,
            thoughts=self._thoughts(sessions, shown) if "thought" in formats else (),
        )

    def _rules(self, sessions: Sequence[Session], patterns: Sequence[Pattern]) -> tuple[Rule, ...]:
        distiller = RuleDistiller(patterns)
        kinds: Counter[str] = Counter()
        stated: list[Rule] = []
        for session, answer, usage in self._each("rule", distiller, sessions):
            kinds.update(answer.kinds)
            source = self._provenance(session, distiller, usage, max(1, len(answer.rules)))
            stated += [Rule(text=text, provenance=source) for text in answer.rules]
        self.report.kinds = dict(sorted(kinds.items()))
        self.report.stated_rules = len(stated)
        return merge_rules(stated, limit=self._config.max_rules)

    def _thoughts(self, sessions: Sequence[Session], rules: Sequence[str]) -> tuple[Thought, ...]:
        distiller = ThoughtDistiller(rules)
        thoughts = []
        for session, answer, usage in self._each("thought", distiller, sessions):
            self.report.retried_thoughts += answer.attempts > 1
            if answer.problem:
                self.report.dropped_thoughts[session.id] = answer.problem
                continue
            source = self._provenance(session, distiller, usage, 1)
            thoughts.append(Thought(session_id=session.id, text=answer.thought, provenance=source))
        return tuple(thoughts)

    def _each(
        self, step: str, distiller: dspy.Module, sessions: Sequence[Session]
    ) -> list[tuple[Session, Any, Usage]]:
        """The distiller's answers for the sessions that have one, in the sessions' order."""
        failed: dict[str, str] = {}
        done = count(1)

        def one(session: Session) -> tuple[Session, Any, Usage] | None:
            try:
                with metered() as meter:
                    answer = distiller(session=session)
                return session, answer, meter.usage
            except BudgetError as error:
                # Other sessions may have their answers in the journal.
                self.report.stopped = str(error)
            except Exception as error:
                if not is_session_error(error):
                    raise
                failed[session.id] = " ".join(str(error).split())[:300]
            finally:
                if self._on_step is not None:
                    self._on_step(step, next(done), len(sessions))
            return None

        with dspy.context(lm=self._lm):
            answers = call_all(one, sessions, num_threads=self._config.threads)
        if sessions and len(failed) == len(sessions):
            name = sessions[0].id
            raise RouteDKError(
                f"{step}s: all {len(sessions)} sessions failed, e.g. {name!r}: {failed[name]}"
            )
        self.report.quarantined += [
            {"session_id": name, "step": step, "error": failed[name]} for name in sorted(failed)
        ]
        return [answer for answer in answers if answer is not None]

    def _provenance(
        self, session: Session, distiller: dspy.Module, usage: Usage, shares: int
    ) -> Provenance:
        """Of one of several pieces that the session's calls made: they share the cost."""
        cost = self._price(usage.input_tokens, usage.output_tokens)
        return Provenance(
            teacher=self._lm.model,
            sessions=(session.id,),
            prompt_hash=_prompt_hash(distiller),
            tokens=(usage.input_tokens + usage.output_tokens) // shares,
            cost=None if cost is None else round(cost / shares, 8),
        )


def _prompt_hash(program: dspy.Module) -> str:
    """A hash of a program's instructions and of how its fields are shown."""
    asked = [
        (
            name,
            predictor.signature.instructions,
            [
                (field, info.json_schema_extra["desc"])
                for field, info in predictor.signature.fields.items()
            ],
        )
        for name, predictor in program.named_predictors()
    ]
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]
