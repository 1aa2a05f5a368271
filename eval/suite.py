"""The baselines of every table, by their public names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from routedk.errors import SettingError
from routedk.eval.baselines import AllPairs, Baseline, FirstTwo, SameCategory, WholeSession
from routedk.eval.bootstrap import RESAMPLES
from routedk.eval.clusters import (
    EMBEDDING_THRESHOLDS,
    PAIR_THRESHOLDS,
    TITLE_THRESHOLDS,
    Clusters,
    tune_clusters,
)
from routedk.eval.evaluate import evaluate, predict_baseline
from routedk.eval.report import System
from routedk.similarity.encoders import TfidfEncoder, TitleEncoder
from routedk.similarity.pairs import fit_pairs
from routedk.types import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineData:
    """What a baseline may learn from.

    Args:
        catalogue: All sessions of the data set; their titles, never their bundles, are used.
        validation: Sessions that thresholds are chosen on; those without gold are passed over.
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
    return tune_clusters(data.encoder, data.validation, PAIR_THRESHOLDS, pairs)


BASELINES: Mapping[str, Callable[[BaselineData], Baseline]] = MappingProxyType(
    {
        "whole-session": lambda _: WholeSession(),
        "first-two": lambda _: FirstTwo(),
        "all-pairs": lambda _: AllPairs(),
        "category-1": lambda _: SameCategory(1),
        "category-2": lambda _: SameCategory(2),
        "category-3": lambda _: SameCategory(3),
        "title-clusters": title_clusters,
        "embedding-clusters": embedding_clusters,
        "pair-clusters": pair_clusters,
    }
)


def make_baseline(name: str, data: BaselineData) -> Baseline:
    """The named baseline, ready to predict.

    Args:
        name: One of `BASELINES`.
        data: What it may learn from.

    Raises:
        SettingError: For an unknown name, or when a threshold cannot be chosen.
    """
    if name not in BASELINES:
        raise SettingError(f"no baseline is called {name!r}: choose among {', '.join(BASELINES)}")
    return BASELINES[name](data)


def evaluate_baselines(
    sessions: Sequence[Session],
    data: BaselineData,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    names: Iterable[str] | None = None,
) -> tuple[System, ...]:
    """Score baselines on the same sessions and the same bootstrap draws.

    Args:
        sessions: Sessions to score; those without gold bundles are passed over.
        data: What the baselines may learn from.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        names: Names of `BASELINES`; None for all, `pair-clusters` where there are training
            sessions.

    Raises:
        DataError: When no session has a gold bundle.
        SettingError: For an unknown name, or when a threshold cannot be chosen.
    """
    scored = [session for session in sessions if session.gold]
    systems = []
    if names is None:
        names = [name for name in BASELINES if data.training or name != "pair-clusters"]
    for name in names:
        baseline = make_baseline(name, data)
        if isinstance(baseline, Clusters):
            # One call for all titles: an encoder is much faster on many texts than on few.
            baseline.encoder.encode([item.title for session in scored for item in session.items])
        predictions = predict_baseline(baseline, scored)
        result = evaluate(sessions, predictions, seed=seed, resamples=resamples)
        systems.append(System(name=name, result=result, config=_config(baseline, data, scored)))
    return tuple(systems)


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
