"""The baselines of every table, by their public names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from routedk.errors import SettingError
from routedk.eval.baselines import Baseline, SameCategory, all_pairs, first_two, whole
from routedk.eval.clusters import EMBEDDING_THRESHOLDS, TITLE_THRESHOLDS, Clusters, tune_clusters
from routedk.eval.scoring import Scorer, System
from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.pairs import fit_pairs
from routedk.similarity.words import TfidfEncoder
from routedk.types import Answer, Bundle, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineData:
    """What a baseline may learn from.

    Args:
        catalogue: All sessions of the data set; their titles, never their bundles, are used.
        validation: Sessions that thresholds are chosen on; those without gold are skipped.
        validation_name: The split they come from, for the record.
        encoder: Encoder for `embedding-clusters` and `pair-clusters`.
        training: Sessions whose gold `pair-clusters` learns from: none that are scored.
    """

    catalogue: Sequence[Session]
    validation: Sequence[Session]
    validation_name: str = "val"
    encoder: TitleEncoder
    training: Sequence[Session] = ()


def title_clusters(data: BaselineData) -> Clusters:
    """`title-clusters`: TF-IDF fitted on every title of the data set, each item once."""
    titles = {
        (item.id, item.title) for session in data.catalogue for item in session.items if item.title
    }
    encoder = TfidfEncoder(title for _, title in sorted(titles))
    return tune_clusters(encoder, data.validation, TITLE_THRESHOLDS)


def embedding_clusters(data: BaselineData) -> Clusters:
    """`embedding-clusters`: a sentence encoder's vectors."""
    return tune_clusters(data.encoder, data.validation, EMBEDDING_THRESHOLDS)


def pair_clusters(data: BaselineData) -> Clusters:
    """`pair-clusters`: the probability of a pair, learnt from training sessions' gold."""
    pairs = fit_pairs(data.training, data.encoder)
    if pairs is None:
        raise SettingError(
            "pair-clusters learns from training sessions, some of whose pairs of items are "
            "bundled and some not, and there are none: leave this baseline out"
        )
    return tune_clusters(data.encoder, data.validation, EMBEDDING_THRESHOLDS, pairs)


BASELINES: Mapping[str, Callable[[BaselineData], Baseline]] = MappingProxyType(
    {
        "whole-session": lambda _: whole,
        "first-two": lambda _: first_two,
        "all-pairs": lambda _: all_pairs,
        "category-1": lambda _: SameCategory(1),
        "category-2": lambda _: SameCategory(2),
        "category-3": lambda _: SameCategory(3),
        "title-clusters": title_clusters,
        "embedding-clusters": embedding_clusters,
        "pair-clusters": pair_clusters,
    }
)


def score_baselines(scorer: Scorer, data: BaselineData) -> tuple[System, ...]:
    """Score all baselines; without training sessions there is no `pair-clusters`.

    Args:
        scorer: Of the sessions; every other system of the table is scored by the same one.
        data: What the baselines may learn from.

    Raises:
        SettingError: A threshold cannot be chosen.
    """
    systems = []
    for name, make in BASELINES.items():
        if name == "pair-clusters" and not data.training:
            continue
        baseline = make(data)
        if isinstance(baseline, Clusters):
            baseline.encode_titles(scorer.scored)
        answers = [baseline_answer(baseline, session) for session in scorer.scored]
        systems.append(scorer.score(name, answers, _config(baseline, data, scorer.scored)))
    return tuple(systems)


def baseline_answer(baseline: Baseline, session: Session) -> Answer:
    """What a baseline predicts for a session; its bundles have no intents."""
    bundles = (
        Bundle(tuple(item.id for item in session.items if item.id in items))
        for items in baseline(session)
    )
    return Answer(session.id, tuple(bundles))


def _config(baseline: Baseline, data: BaselineData, scored: Sequence[Session]) -> dict[str, Any]:
    """The settings of one baseline for the record."""
    if isinstance(baseline, Clusters):
        learnt = {"learnt_from_sessions": sum(bool(s.gold) for s in data.training)}
        return {
            **(learnt if baseline.pairs is not None else {}),
            "threshold": baseline.threshold,
            "tuned_on": data.validation_name,
            "tuned_on_sessions": sum(bool(session.gold) for session in data.validation),
        }
    if isinstance(baseline, SameCategory):
        bare = sum(not item.categories for session in scored for item in session.items)
        # An item without a category stays out of every bundle, as if it had been dropped.
        return {"depth": baseline.depth, "items_without_category": bare, "leaks": bare > 0}
    return {}
