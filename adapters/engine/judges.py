"""The student as a judge: of candidate bundles, and of candidate answers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from routedk.adapters.engine.scoring import Continuation, scorer_of
from routedk.adapters.training.verdicts import NO, YES, VerifierError, verdict_head
from routedk.errors import SettingError
from routedk.programs.choosing.likelihood import AnswerScores
from routedk.programs.choosing.verification import Verdicts
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import NO_KNOWLEDGE, CompiledKnowledge
from routedk.programs.prompting.item_intents import render_intents
from routedk.programs.prompting.layout import build_messages, render_answer, render_items
from routedk.programs.usage import Usage
from routedk.types import Bundle, Session

if TYPE_CHECKING:
    import dspy


class StudentVerifier:
    """Judges candidate bundles by a student that was trained to verify.

    The probability of yes is ``exp(y) / (exp(y) + exp(n))``, with y and n the log-likelihoods of
    the two verdicts. All candidates of a session share one prefill.

    Args:
        lm: Of a student trained with the answer form `verification`, made by `student_lm`.
        knowledge: Rules and neighbours for the prompt; none by default.

    Raises:
        SettingError: It is another language model, or a student of another form.
    """

    def __init__(self, lm: "dspy.LM", knowledge: CompiledKnowledge = NO_KNOWLEDGE) -> None:
        self.scorer = scorer_of(lm)
        self.knowledge = knowledge
        form = self.scorer.engine.form
        if form != "verification":
            raise SettingError(
                f"this student has the answer form {form!r} and was not trained to verify: train "
                "experts with --answer-form verification"
            )

    def __call__(self, session: Session, candidates: Sequence[frozenset[str]]) -> Verdicts:
        """The probability that each candidate is a bundle; see `Verifier`."""
        heads = [verdict_head(session, items) for items in candidates]
        messages = build_messages(session, self.knowledge.context(session))
        scored = self.scorer(messages, [Continuation(v, head) for head in heads for v in (YES, NO)])
        totals = [one.total for one in scored.likelihoods]
        return Verdicts(
            tuple(
                1 / (1 + math.exp(min(no - yes, 700)))
                for yes, no in zip(totals[::2], totals[1::2], strict=True)
            ),
            Usage(calls=1, input_tokens=scored.tokens),
        )


class StudentRanker:
    """Tells how likely a student finds each of several answers, in the form that it writes.

    An answer of bundles is one completion of the prompt. A student of the form `item-intents`
    writes a line per item: the answer's likelihood is that of the lines which name, for each item,
    the intents of its bundles, ``none`` for an item in no bundle.

    Args:
        lm: Of a student, made by `student_lm` or `engine_lm`.
        generator: What asks it: its messages stand before the answers.

    Raises:
        SettingError: It is another language model, or a student that only verifies.
    """

    def __init__(self, lm: "dspy.LM", generator: BundleGenerator | None = None) -> None:
        self.scorer = scorer_of(lm)
        self.generator = generator or BundleGenerator()
        if self.scorer.engine.form == "verification":
            raise VerifierError

    @property
    def needs_intents(self) -> bool:
        """Whether it knows bundles by their intents, as a student that names items does."""
        return self.scorer.engine.form == "item-intents"

    def __call__(self, session: Session, answers: Sequence[Sequence[Bundle]]) -> AnswerScores:
        """The log-likelihood of each answer; see `AnswerScorer`."""
        parts = [self._completions(session, bundles) for bundles in answers]
        distinct = list(dict.fromkeys(part for mine in parts for part in mine))
        scored = self.scorer(self.generator.messages(session), distinct)
        found = dict(zip(distinct, scored.likelihoods, strict=True))
        return AnswerScores(
            tuple(sum(found[part].total for part in mine) for mine in parts),
            tuple(sum(found[part].tokens for part in mine) for mine in parts),
            Usage(calls=1, input_tokens=scored.tokens),
        )

    def _completions(self, session: Session, bundles: Sequence[Bundle]) -> list[Continuation]:
        if not self.needs_intents:
            return [Continuation(render_answer(session, bundles))]
        return [
            Continuation(
                f" {render_intents([b.intent for b in bundles if item.id in b.items])}", f"{line} |"
            )
            for line, item in zip(render_items(session).split("\n"), session.items, strict=True)
        ]
