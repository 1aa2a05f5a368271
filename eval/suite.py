"""The baselines of every table, by their public names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from routedk.data.policies import has_title
from routedk.eval.baselines import Baseline, SameCategory, all_pairs, first_two, whole
from routedk.eval.clusters import EMBEDDING_THRESHOLDS, TITLE_THRESHOLDS, Clusters, tune_clusters
from routedk.eval.scoring import System
from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.pairs import fit_pairs
from routedk.similarity.words import TfidfEncoder
from routedk.types import Answer, Bundle, Session


@dataclass(frozen=True, slots=True)
class BaselineData:
    """Sessions and encoder that a baseline may use.

    Args:
        catalogue: All sessions of the data set; their titles, never their bundles, are used.
        validation: Sessions with gold that thresholds are chosen on.
        validation_name: The split they come from, for the record.
        encoder: Encoder for `embedding-clusters` and `pair-clusters`.
        training: Sessions with gold that `pair-clusters` learns from: none that are scored.
    """

    catalogue: Sequence[Session]
    validation: Sequence[Session]
    validation_name: str
    encoder: TitleEncoder
    training: Sequence[Session]


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


def pair_clusters(data: BaselineData) -> Clusters | None:
    """`pair-clusters`: the probability of a pair, learned from training sessions' gold."""
    pairs = fit_pairs(data.training, data.encoder)
    if pairs is None:
        return None
    return tune_clusters(data.encoder, data.validation, EMBEDDING_THRESHOLDS, pairs)


BASELINES: Mapping[str, Callable[[BaselineData], Baseline | None]] = MappingProxyType(
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


def score_baselines(
    score: Callable[..., System],
    scored: Sequence[Session],
    empty: Sequence[Session] = (),
    *,
    training: Sequence[Session],
    validation: Sequence[Session],
    catalogue: Sequence[Session],
    encoder: TitleEncoder,
) -> tuple[System, ...]:
    """Score all baselines; there is no `pair-clusters` where no pair can be learned from.

    Args:
        score: Scores the answers of a named system, with its ``config``, as it does all others.
        scored: The sessions with gold bundles that it scores; nothing is learned from them.
        empty: Those annotated as holding no bundle.
        training: As in `evaluate`, and so are the others.
        validation: Where none has gold, the training sessions choose the thresholds.
        catalogue: All sessions of the data set.
        encoder: Encoder of titles.

    Raises:
        SettingError: A threshold cannot be chosen.
    """
    answered = [*scored, *empty]
    ids = {session.id for session in answered}
    unseen = [session for session in training if session.gold and session.id not in ids]
    known = [session for session in validation if session.gold]
    # A small data set may have no validation session with gold; training sessions are as unseen.
    split, tuning, learnable = ("val", known, unseen) if known else ("train", unseen, [])
    titled = [one for one in learnable if all(has_title(item) for item in one.items)]
    data = BaselineData(catalogue, tuning, split, encoder, titled)
    systems = []
    for name, make in BASELINES.items():
        baseline = make(data)
        if baseline is None:
            continue
        if isinstance(baseline, Clusters):
            baseline.encode_titles(answered)
        answers = [_answer(baseline, session) for session in answered]
        system = score(name, answers, config=_config(baseline, data, scored))
        if isinstance(baseline, Clusters):
            system = replace(system, empties_curve=baseline.curve(answered))
        systems.append(system)
    return tuple(systems)


def _answer(baseline: Baseline, session: Session) -> Answer:
    """Answer a session by a baseline; its bundles have no intents."""
    bundles = (
        Bundle(tuple(item.id for item in session.items if item.id in items))
        for items in baseline(session)
    )
    return Answer(session.id, tuple(bundles))


def _config(baseline: Baseline, data: BaselineData, scored: Sequence[Session]) -> dict[str, Any]:
    """The settings of one baseline for the record."""
    if isinstance(baseline, Clusters):
        learnt = {"learnt_from_sessions": len(data.training)} if baseline.pairs else {}
        bare = count_untitled(scored)
        return {
            **learnt,
            **({"items_without_title": bare, "leaks": True} if bare else {}),
            "threshold": baseline.threshold,
            "tuned_on": data.validation_name,
            "tuned_on_sessions": len(data.validation),
        }
    if isinstance(baseline, SameCategory):
        bare = sum(not item.categories for session in scored for item in session.items)
        # An item without a category stays out of every bundle, as if it had been dropped.
        return {"depth": baseline.depth, "items_without_category": bare, "leaks": bare > 0}
    return {}


def count_untitled(sessions: Sequence[Session]) -> int:
    """Items without a title, once per session that holds them."""
    return sum(not has_title(item) for session in sessions for item in session.items)
