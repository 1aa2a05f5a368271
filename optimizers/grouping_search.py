"""`GroupingSearch`: how alike intents must be to make a bundle, chosen on validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
from dspy.teleprompt import Teleprompter
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.eval import matched_f1
from routedk.eval.baselines import whole
from routedk.optimizers.metric import Answering, as_examples, matched_f1_metric
from routedk.programs.batch import call_all, generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping import SimilarIntents, intent_dendrogram
from routedk.programs.intent_overlap import line_scorer
from routedk.programs.prompting.item_intents import ItemCandidates
from routedk.similarity.dendrogram import Dendrogram
from routedk.similarity.encoders import TitleEncoder, default_encoder
from routedk.similarity.pairs import PairModel, fit_pairs
from routedk.types import Session

# How alike the intents of a session's items are, shape (items, items).
Overlap: TypeAlias = NDArray[np.float64]

# Without weight for the intents the student would have no say.
WEIGHTS = (0.25, 0.5, 0.75, 1.0)
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 19))


class GroupingSearch(Teleprompter):  # type: ignore[misc]
    """Chooses between grouping by equal and by similar intents, and how similar.

    The student answers each validation session once, and the groupings are tried on these answers:
    how much intents weigh; whether they are compared by their embeddings or, where the language
    model gives them, by likelihoods (`routedk.programs.intent_overlap`); whether titles are
    compared by their cosine or by a model of pairs of titles, learned from the training
    sessions (`routedk.similarity.pairs.PairModel`); and where to cut. They are many and sessions
    few, so chance would often win: a threshold is scored together with its two neighbours, and
    grouping by equal intents stays unless the best of the others is better, session by session, by
    more than the standard error of the difference; to leave a session without a bundle takes two.

    Args:
        encoder: Embeds intents and titles; None for the default one.
        num_threads: Calls to the LM at once.
        answering: From a program and sessions to its answers, in order, each with ``bundles`` and
            ``candidates``; None asks the program.
    """

    def __init__(
        self,
        *,
        encoder: TitleEncoder | None = None,
        num_threads: int = 16,
        answering: Answering | None = None,
    ) -> None:
        """Keep the settings."""
        super().__init__()
        self._encoder = encoder
        self._num_threads = num_threads
        self._answering = answering or partial(generate_all, num_threads=num_threads)

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
                the grouping is chosen on, and no such model is learned.
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
        answers = self._answering(compiled, sessions)
        equal_S = np.array(list(map(matched_f1_metric, as_examples(sessions), answers)))
        best_S = equal_S
        named: list[ItemCandidates] = [answer.candidates for answer in answers]
        if all(named):
            encoder = self._encoder or default_encoder()
            scored = {session.id for session in sessions}
            others = [e.session for e in trainset if e.session.id not in scored]
            pairs = fit_pairs(others, encoder)
            overlaps: Sequence[Overlap | None] = [None] * len(sessions)
            if line_scorer(compiled.generate) is not None:
                asked = [*zip(sessions, named, strict=True)]
                overlaps = call_all(
                    lambda one: compiled.overlap(*one), asked, num_threads=self._num_threads
                )
            found = _best([*zip(sessions, named, overlaps, strict=True)], encoder, pairs)
            if _beyond(found.scores_S - equal_S, errors=1):
                best_S, compiled.grouping = found.scores_S, found.grouping
        trial = {
            "equal_intents_f1": float(equal_S.mean()),
            "grouping_f1": float(best_S.mean()),
            "sessions": len(sessions),
        }
        compiled.trials = [*compiled.trials, trial]
        return compiled


@dataclass(frozen=True)
class _Found:
    """A grouping cut where it is best, its score there with its neighbours', and per session."""

    grouping: SimilarIntents
    smooth: float
    scores_S: NDArray[np.float64]


def _best(
    answered: Sequence[tuple[Session, ItemCandidates, Overlap | None]],
    encoder: TitleEncoder,
    learnt: PairModel | None,
) -> _Found:
    """The grouping with the best score among its neighbours.

    Args:
        answered: Validation sessions, the candidates named for their items, and how these overlap.
        encoder: Embeds intents and titles.
        learnt: A learned model of pairs, tried as well as the cosine.
    """
    told = all(overlap is not None for _, _, overlap in answered)
    kinds = product(dict.fromkeys((None, learnt)), (False, True) if told else (False,), WEIGHTS)
    found = []
    for pairs, by_likelihood, weight in kinds:
        grouping = SimilarIntents(
            weight=weight, threshold=0.0, pairs=pairs, by_likelihood=by_likelihood
        )
        trees = []
        for session, named, overlap in answered:
            alike = overlap if by_likelihood else None
            tree = intent_dendrogram(session, named, encoder, weight, pairs, alike)
            trees.append((session, tree))
        found += [_cut(trees, replace(grouping, fall_back=back)) for back in (True, False)]
    whole, no_bundle = (
        max((one for one in found if one.grouping.fall_back is back), key=attrgetter("smooth"))
        for back in (True, False)
    )
    # A validation set has few sessions without a bundle: to leave others without one for their
    # sake takes more than they alone can show.
    better = _beyond(no_bundle.scores_S - whole.scores_S, errors=2)
    return no_bundle if better else whole


def _cut(trees: Sequence[tuple[Session, Dendrogram]], grouping: SimilarIntents) -> _Found:
    """The grouping with the best threshold."""

    def score(session: Session, tree: Dendrogram, threshold: float) -> float:
        left = whole(session) if grouping.fall_back else []
        return matched_f1(session.gold, tree.cut(threshold) or left)

    scores_HS = np.array([[score(*tree, threshold) for tree in trees] for threshold in THRESHOLDS])
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
