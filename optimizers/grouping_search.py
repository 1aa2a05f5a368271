"""`GroupingSearch`: how alike intents must be to make a bundle, chosen on validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import attrgetter
from typing import Any

import numpy as np
from dspy.teleprompt import Teleprompter
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.eval import matched_f1
from routedk.eval.baselines import whole
from routedk.programs.batch import call_all, generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping import SimilarIntents, intent_dendrogram
from routedk.programs.intent_overlap import tells_likelihoods
from routedk.programs.prompting.item_intents import ItemCandidates
from routedk.similarity.dendrogram import Dendrogram
from routedk.similarity.encoders import TitleEncoder, default_encoder
from routedk.similarity.pairs import PairModel, fit_pairs
from routedk.types import Session

# Without weight for the intents the student would have no say.
WEIGHTS = (0.25, 0.5, 0.75, 1.0)
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 19))


class GroupingSearch(Teleprompter):  # type: ignore[misc]
    """Chooses between grouping by equal and by similar intents, and how similar.

    The student answers each validation session once, and the groupings are tried on these answers:
    how much intents weigh; whether they are compared by their embeddings or, where the language
    model tells them, by likelihoods (`routedk.programs.intent_overlap`); whether titles are
    compared by their cosine or by what a model learns of pairs of titles from the training
    sessions (`routedk.similarity.pairs.PairModel`); and where to cut. They are many and sessions
    few, so chance would often win: a threshold is scored together with its two neighbours, and
    grouping by equal intents stays unless the best of the others is better, session by session, by
    more than the standard error of the difference; to leave a session without a bundle takes two.

    Args:
        encoder: Embeds intents and titles; None for the default one.
        num_threads: Calls to the LM under way at once.
    """

    def __init__(self, *, encoder: TitleEncoder | None = None, num_threads: int = 16) -> None:
        """Keep the settings."""
        super().__init__()
        self._encoder = encoder
        self._num_threads = num_threads

    def compile(
        self,
        student: BundleGenerator,
        *,
        trainset: Sequence[Any],
        teacher: Any = None,
        valset: Sequence[Any] | None = None,
    ) -> BundleGenerator:
        """Return a copy of the student with the best grouping.

        Args:
            student: The program; it is not changed.
            trainset: Examples that the model of pairs learns from; without a validation set, what
                the grouping is chosen on, and no such model is learnt.
            teacher: Not used; DSPy's interface names it.
            valset: Examples to choose on.

        Returns:
            The compiled program; its last trial says what the choice rests on.

        Raises:
            SettingError: No session has gold.
        """
        examples = trainset if valset is None else valset
        sessions = [e.session for e in examples if e.session.bundles is not None]
        if not sessions:
            raise SettingError("no session has gold: there is nothing to choose the grouping on")
        compiled: BundleGenerator = student.deepcopy()
        compiled.grouping = None
        answers = generate_all(compiled, sessions, num_threads=self._num_threads)
        labels = [answer.candidates or None for answer in answers]
        equal_S = np.array(
            [
                matched_f1(session.gold, [bundle.items for bundle in answer.bundles])
                for session, answer in zip(sessions, answers, strict=True)
            ]
        )
        equal = best = float(equal_S.mean())
        if all(mine is not None for mine in labels):
            encoder = self._encoder or default_encoder()
            pairs = None if valset is None else _learnt(trainset, sessions, encoder)
            read = [
                _Read(session, mine or [], overlap)
                for session, mine, overlap in zip(
                    sessions, labels, self._overlaps(compiled, sessions, labels), strict=True
                )
            ]
            found = _best(read, encoder, pairs)
            if _beyond(found.scores_S - equal_S, errors=1):
                best, compiled.grouping = float(found.scores_S.mean()), found.grouping
        trial = {"equal_intents_f1": equal, "grouping_f1": best, "sessions": len(sessions)}
        compiled.trials = [*compiled.trials, trial]
        return compiled

    def _overlaps(
        self,
        program: BundleGenerator,
        sessions: Sequence[Session],
        labels: Sequence[ItemCandidates | None],
    ) -> Sequence[NDArray[np.float64] | None]:
        """How the intents of each session's items overlap; None where the LM cannot tell."""
        if not tells_likelihoods(program.generate):
            return [None] * len(sessions)

        def overlap(place: int) -> NDArray[np.float64]:
            return program.overlap(sessions[place], labels[place] or [])

        return call_all(overlap, range(len(sessions)), num_threads=self._num_threads)


@dataclass(frozen=True)
class _Read:
    """A validation session as the student read it."""

    session: Session
    readings: ItemCandidates
    overlap: NDArray[np.float64] | None


@dataclass(frozen=True)
class _Found:
    """A grouping cut where it is best, its score there with its neighbours', and per session."""

    grouping: SimilarIntents
    smooth: float
    scores_S: NDArray[np.float64]


def _learnt(
    trainset: Sequence[Any], scored: Sequence[Session], encoder: TitleEncoder
) -> PairModel | None:
    """A model of pairs of the training sessions that are not scored."""
    known = {session.id for session in scored}
    sessions = [example.session for example in trainset]
    return fit_pairs([session for session in sessions if session.id not in known], encoder)


def _best(read: Sequence[_Read], encoder: TitleEncoder, learnt: PairModel | None) -> _Found:
    """The grouping with the best score among its neighbours."""
    told = all(one.overlap is not None for one in read)
    kinds = product(dict.fromkeys((None, learnt)), (False, True) if told else (False,), WEIGHTS)
    found: list[_Found] = []
    for pairs, by_likelihood, weight in kinds:
        trees = [
            intent_dendrogram(
                one.session,
                one.readings,
                encoder,
                weight,
                pairs,
                one.overlap if by_likelihood else None,
            )
            for one in read
        ]
        grouping = SimilarIntents(
            weight=weight, threshold=0.0, pairs=pairs, by_likelihood=by_likelihood
        )
        found += [
            _cut(read, trees, replace(grouping, fall_back=fall_back)) for fall_back in (True, False)
        ]
    best, other = (
        max((one for one in found if one.grouping.fall_back is fall_back), key=attrgetter("smooth"))
        for fall_back in (True, False)
    )
    # A validation set has few sessions without a bundle: to leave others without one for their
    # sake takes more than they alone can show.
    return other if _beyond(other.scores_S - best.scores_S, errors=2) else best


def _cut(read: Sequence[_Read], trees: Sequence[Dendrogram], grouping: SimilarIntents) -> _Found:
    """The grouping with the best threshold."""
    scores_HS = np.array([_scores(read, trees, high, grouping.fall_back) for high in THRESHOLDS])
    around_HS = np.pad(scores_HS, ((1, 1), (0, 0)), mode="edge")
    smooth_H = (around_HS[:-2] + around_HS[1:-1] + around_HS[2:]).mean(axis=1) / 3
    place = int(smooth_H.argmax())
    chosen = replace(grouping, threshold=THRESHOLDS[place])
    return _Found(chosen, float(smooth_H[place]), scores_HS[place])


def _beyond(gain_S: NDArray[np.float64], errors: float) -> bool:
    """Whether a mean gain is more than so many of its standard errors."""
    return len(gain_S) > 1 and bool(
        gain_S.mean() > errors * gain_S.std(ddof=1) / len(gain_S) ** 0.5
    )


def _scores(
    read: Sequence[_Read], trees: Sequence[Dendrogram], threshold: float, fall_back: bool
) -> list[float]:
    return [
        matched_f1(
            one.session.gold,
            tree.cut(threshold) or (whole(one.session) if fall_back else []),
        )
        for one, tree in zip(read, trees, strict=True)
    ]
