"""The LM teacher: patterns from annotations, rules and thoughts from any ``dspy.LM``."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy

from routedk.errors import RouteDKError, SettingError
from routedk.programs.batch import call_all
from routedk.programs.journal.journaled_lm import BudgetError, is_session_error
from routedk.programs.teachers.patterns import mine_patterns
from routedk.programs.teachers.rule_distiller import RuleDistiller
from routedk.programs.teachers.rule_merging import merge_rules
from routedk.programs.teachers.teacher import ALL_FORMATS, Format, check_formats
from routedk.programs.teachers.thought_distiller import ThoughtDistiller
from routedk.programs.usage import Usage, metered
from routedk.similarity.encoders import TitleEncoder
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, Session, Thought

Price = Callable[[int, int], float | None]


@dataclass(frozen=True, kw_only=True)
class DistillReport:
    """What happened on the way to a knowledge base.

    Args:
        kinds: How many bundles the teacher stated of each kind of `routedk.eval.mistakes`, and
            answers that could not be read (``unparsable``).
        stated_rules: Rules before they were merged.
        retried_thoughts: Thoughts that were wrong at first.
        dropped_thoughts: Thoughts that were wrong again, by session id, with what was wrong.
        quarantined: Sessions left out of a step since its answers could not be had, each with
            ``session_id``, ``step`` and ``error``.
        stopped: Why calls were not made; empty where all were.
    """

    kinds: Mapping[str, int] = field(default_factory=dict)
    stated_rules: int = 0
    retried_thoughts: int = 0
    dropped_thoughts: Mapping[str, str] = field(default_factory=dict)
    quarantined: Sequence[Mapping[str, str]] = ()
    stopped: str = ""


class LMTeacher:
    """Distils with a language model: mistakes into rules, gold into thoughts.

    Formats build on each other: patterns, counted from gold, are evidence for rules; rules are
    shown where thoughts are made. Each link can be cut. An error that concerns one session
    quarantines it. Where a budget is exhausted no further call is made, and what could be made
    without is returned. Any other error is raised.

    Args:
        lm: The teacher.
        formats: Kinds of knowledge to make.
        patterns_feed_rules: Rules are made with patterns in view.
        rules_feed_thoughts: Thoughts are made with rules in view.
        max_rules: Most rules, at least 0.
        max_patterns: Most patterns, at least 0.
        min_support: Least share of bundles for a pattern, in (0, 1].
        num_threads: Calls under way at once, at least 1.
        price: US dollars of a call by its input and output tokens, None where unknown.
        encoder: Tells which rules are alike; by default the embedded MiniLM.
        on_session: Called after each session of a step with the step's name, ``rule`` or
            ``thought``, from any thread.

    Attributes:
        report: What happened in the last run.

    Raises:
        SettingError: A value is out of its range.
        RouteDKError: From ``distill``: every session failed.

    Source: three formats, progressively distilled: arXiv 2504.17220.
    """

    def __init__(
        self,
        lm: Any,
        *,
        formats: Sequence[Format] = ALL_FORMATS,
        patterns_feed_rules: bool = True,
        rules_feed_thoughts: bool = True,
        max_rules: int = 24,
        max_patterns: int = 50,
        min_support: float = 0.01,
        num_threads: int = 8,
        price: Price | None = None,
        encoder: TitleEncoder | None = None,
        on_session: Callable[[str], None] | None = None,
    ) -> None:
        """Check and keep the settings."""
        if max_rules < 0:
            raise SettingError(f"max_rules={max_rules}: it must be at least 0")
        if num_threads < 1:
            raise SettingError(f"num_threads={num_threads}: it must be at least 1")
        self._lm = lm
        self._formats = check_formats(formats)
        self._patterns_feed_rules = patterns_feed_rules
        self._rules_feed_thoughts = rules_feed_thoughts
        self._max_rules = max_rules
        self._max_patterns = max_patterns
        self._min_support = min_support
        self._num_threads = num_threads
        self._price = price or (lambda read, written: None)
        self._encoder = encoder
        self._on_session = on_session or (lambda step: None)
        self.report = DistillReport()

    def distill(self, sessions: Sequence[Session]) -> KnowledgeBase:
        """See `routedk.programs.teachers.teacher.Teacher`."""
        annotated = [session for session in sessions if session.bundles is not None]
        run = _Run()
        patterns = self._patterns(annotated)
        rules = self._rules(annotated, patterns, run) if "rule" in self._formats else ()
        thoughts = self._thoughts(annotated, rules, run) if "thought" in self._formats else ()
        self.report = DistillReport(
            kinds=dict(sorted(run.kinds.items())),
            stated_rules=run.stated_rules,
            retried_thoughts=run.retried,
            dropped_thoughts=dict(sorted(run.dropped.items())),
            quarantined=tuple(run.quarantined),
            stopped=run.stopped,
        )
        kept = patterns if "pattern" in self._formats else ()
        return KnowledgeBase(patterns=kept, rules=rules, thoughts=thoughts)

    def _patterns(self, sessions: Sequence[Session]) -> tuple[Pattern, ...]:
        wanted = "pattern" in self._formats or (
            "rule" in self._formats and self._patterns_feed_rules
        )
        if not wanted:
            return ()
        return mine_patterns(sessions, min_support=self._min_support, limit=self._max_patterns)

    def _rules(
        self, sessions: Sequence[Session], patterns: Sequence[Pattern], run: "_Run"
    ) -> tuple[Rule, ...]:
        distiller = RuleDistiller(patterns if self._patterns_feed_rules else ())
        stated: list[Rule] = []
        for session, answer, usage in self._each("rule", distiller, sessions, run):
            run.kinds.update(answer.kinds)
            source = self._provenance(session, distiller, usage, max(1, len(answer.rules)))
            stated += [Rule(text=text, provenance=source) for text in answer.rules]
        run.stated_rules = len(stated)
        return merge_rules(stated, limit=self._max_rules, encoder=self._encoder)

    def _thoughts(
        self, sessions: Sequence[Session], rules: Sequence[Rule], run: "_Run"
    ) -> tuple[Thought, ...]:
        shown = [rule.text for rule in rules] if self._rules_feed_thoughts else []
        distiller = ThoughtDistiller(shown)
        thoughts = []
        for session, answer, usage in self._each("thought", distiller, sessions, run):
            run.retried += answer.attempts > 1
            if answer.problem:
                run.dropped[session.id] = answer.problem
            else:
                source = self._provenance(session, distiller, usage, 1)
                thoughts.append(
                    Thought(session_id=session.id, text=answer.thought, provenance=source)
                )
        return tuple(thoughts)

    def _each(
        self, step: str, distiller: dspy.Module, sessions: Sequence[Session], run: "_Run"
    ) -> list[tuple[Session, Any, Usage]]:
        """The distiller's answers for the sessions that have one, in the sessions' order."""
        failed: dict[str, str] = {}

        def one(session: Session) -> tuple[Session, Any, Usage] | None:
            try:
                with metered() as meter:
                    answer = distiller(session=session)
                return session, answer, meter.usage
            except Exception as error:
                if isinstance(error, BudgetError):
                    # Others may have their answers in a journal.
                    run.stopped = str(error)
                elif is_session_error(error):
                    failed[session.id] = " ".join(str(error).split())[:300]
                else:
                    raise
                return None
            finally:
                self._on_session(step)

        with dspy.context(lm=self._lm):
            answers = call_all(one, sessions, num_threads=self._num_threads)
        if sessions and len(failed) == len(sessions):
            name = sessions[0].id
            raise RouteDKError(
                f"{step}s: all {len(sessions)} sessions failed, e.g. {name!r}: {failed[name]}"
            )
        run.quarantined += [
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


class _Run:
    """What one run found so far; each session is written by one thread."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.stated_rules = 0
        self.retried = 0
        self.dropped: dict[str, str] = {}
        self.quarantined: list[dict[str, str]] = []
        self.stopped = ""


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
