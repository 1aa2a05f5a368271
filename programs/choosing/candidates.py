"""Candidate answers of a session, and the programs that choose among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from routedk.eval.baselines import whole
from routedk.eval.overlap import ItemSets, distinct, jaccard
from routedk.programs.checks import check_count, check_temperature
from routedk.programs.consensus import Consensus
from routedk.programs.prompting.text import neutralise
from routedk.programs.prompting.wording import intent_words, stem
from routedk.programs.session_program import SessionProgram
from routedk.programs.usage import Usage
from routedk.similarity.candidates import session_dendrogram
from routedk.similarity.encoders import TitleEncoder, default_encoder
from routedk.types import Bundle, Session, bundle_sets

ItemSet = frozenset[str]

_SHARED_WORDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateAnswers:
    """What may be answered for one session.

    Args:
        answers: Distinct answers as item sets: every cut of the titles' dendrogram from the
            finest on, the whole session, each sample that could be read.
        bundles: Distinct candidate bundles: the nodes of the dendrogram, then those that only
            samples have.
        stated: The samples' bundles, with their intents.
        drawn: The samples' predictions.
        votes: How many of them could be read.
        usage: What they cost.
    """

    answers: tuple[tuple[ItemSet, ...], ...]
    bundles: tuple[ItemSet, ...]
    stated: tuple[Bundle, ...]
    drawn: tuple[Any, ...]
    votes: int
    usage: Usage

    def bundle(self, session: Session, items: ItemSet) -> Bundle:
        """A candidate with its items in the session's order, and an intent.

        The intent is that of the same item set in a sample, else of the bundle that overlaps it
        most, by Jaccard, else the words that its titles share; the first of equal ones.
        """
        ids = tuple(item.id for item in session.items if item.id in items)
        named = [bundle for bundle in self.stated if bundle.intent and bundle.items & items]
        if named:
            return Bundle(ids, max(named, key=lambda b: jaccard(b.items, items)).intent)
        return Bundle(ids, shared_words([session.item(item_id).title for item_id in ids]))


class ChoosingProgram(SessionProgram):
    """Base of programs that choose among candidate answers of a session.

    Args:
        generator: A ``dspy.Module`` that takes ``session=`` and answers with ``bundles``; None
            where there are no samples.
        n: Number of samples of it, at least 0, drawn as `Consensus` draws them.
        temperature: Of all samples but the first, above 0.
        encoder: Of the titles, for the dendrogram; None for the embedded MiniLM.

    Raises:
        SettingError: A value is not allowed.
    """

    def __init__(
        self, generator: Any, *, n: int, temperature: float, encoder: TitleEncoder | None
    ) -> None:
        super().__init__()
        check_count("n", n, 0)
        check_temperature(temperature)
        self.samples = (
            None
            if generator is None or n == 0
            else Consensus(generator, n=n, temperature=temperature)
        )
        self.encoder = encoder

    def candidates(self, session: Session) -> CandidateAnswers:
        """The candidate answers of one session; draws the samples."""
        drawn: tuple[Any, ...] = ()
        votes, usage = 0, Usage()
        if self.samples is not None:
            found = self.samples(session=session)
            drawn, votes = tuple(found.answers), found.votes
            usage = Usage(
                calls=found.calls,
                input_tokens=found.input_tokens,
                output_tokens=found.output_tokens,
            )
        read = [answer.bundles for answer in drawn if answer.get("error") is None]
        tree = session_dendrogram(session, self.encoder or default_encoder())
        proposed: list[ItemSets] = [*tree.cuts(), *([one] if (one := whole(session)) else [])]
        proposed += map(bundle_sets, read)
        stated = tuple(bundle for bundles in read for bundle in bundles)
        return CandidateAnswers(
            answers=_distinct_answers(proposed),
            bundles=tuple(distinct([*tree.nodes(), *bundle_sets(stated)])),
            stated=stated,
            drawn=drawn,
            votes=votes,
            usage=usage,
        )


def _distinct_answers(answers: Sequence[ItemSets]) -> tuple[tuple[ItemSet, ...], ...]:
    """Answers that differ in more than the order of their bundles, in order."""
    found: dict[frozenset[ItemSet], tuple[ItemSet, ...]] = {}
    for answer in answers:
        found.setdefault(frozenset(answer), tuple(distinct(answer)))
    return tuple(found.values())


def prediction_of(
    session: Session,
    chosen: Sequence[ItemSet],
    confidences: Sequence[float],
    candidates: CandidateAnswers,
    usage: Usage,
    **more: Any,
) -> dspy.Prediction:
    """A prediction with the fields that `Consensus` has.

    Args:
        session: What was asked about.
        chosen: The bundles of the answer.
        confidences: One per bundle, in [0, 1].
        candidates: Where the answer is from.
        usage: What choosing cost, beside the samples.
        **more: Further fields.
    """
    spent = candidates.usage + usage
    return dspy.Prediction(
        bundles=[candidates.bundle(session, items) for items in chosen],
        confidences=list(confidences),
        votes=candidates.votes,
        none=not chosen,
        error=None,
        answers=list(candidates.drawn),
        calls=spent.calls,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        **more,
    )


def shared_words(titles: Sequence[str]) -> str:
    """The first few words that stand in every title, up to a plural; empty where none does.

    Args:
        titles: At least one.
    """
    first, *others = (intent_words(title) for title in titles)
    shared = {word for word in first if all(word in other for other in others)}
    words = dict.fromkeys(
        word.lower() for word in neutralise(titles[0]).split() if stem(word.lower()) in shared
    )
    return " ".join([*words][:_SHARED_WORDS])
