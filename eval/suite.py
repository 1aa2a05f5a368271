"""The baselines of every table, by their public names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeAlias

from routedk.data.policies import has_title
from routedk.eval.clusters import EMBEDDING_THRESHOLDS, TITLE_THRESHOLDS, Clusters, tune_clusters
from routedk.eval.scoring import System
from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.pairs import fit_pairs
from routedk.similarity.words import TfidfEncoder
from routedk.types import Answer, Bundle, Session

Baseline: TypeAlias = Callable[[Session], list[frozenset[str]]]
"""Bundles a session without a language model; its gold bundles are never looked at.

It returns distinct sets of at least two of the session's items, none only if there are fewer than
two items to bundle, and the same ones every time.
"""


def whole(session: Session) -> list[frozenset[str]]:
    """The whole session as one bundle, or none for a session of one item."""
    if len(session.items) < 2:
        return []
    return [frozenset(item.id for item in session.items)]


def first_two(session: Session) -> list[frozenset[str]]:
    """One bundle of the first two items."""
    return [frozenset(item.id for item in session.items[:2])] if len(session.items) > 1 else []


def all_pairs(session: Session) -> list[frozenset[str]]:
    """Every pair of items is a bundle: what a protocol that can be gamed rewards."""
    return [frozenset(pair) for pair in combinations((item.id for item in session.items), 2)]


@dataclass(frozen=True, slots=True)
class SameCategory:
    """Items of the same category form a bundle; if no two share one, the whole session does.

    Args:
        depth: How many steps of the category path must agree, from 1. A shorter path counts in
            full; an item without a category matches no other.
    """

    depth: int

    def __call__(self, session: Session) -> list[frozenset[str]]:
        """Bundle one session; see `Baseline`."""
        groups: dict[tuple[str, ...], set[str]] = {}
        for item in session.items:
            if item.categories:
                groups.setdefault(item.categories[: self.depth], set()).add(item.id)
        bundles = [frozenset(group) for group in groups.values() if len(group) > 1]
        return bundles or whole(session)


BASELINES = (
    *("whole-session", "first-two", "all-pairs", "category-1", "category-2", "category-3"),
    *("title-clusters", "embedding-clusters", "pair-clusters"),
)


def make_baselines(
    catalogue: Sequence[Session],
    tuning: Sequence[Session],
    training: Sequence[Session],
    encoder: TitleEncoder,
) -> dict[str, Baseline]:
    """Make all baselines, by name; without `pair-clusters` if there is no pair to learn from.

    Args:
        catalogue: All sessions of the data set; their titles, never their bundles, are used.
        tuning: Sessions with gold that thresholds are chosen on.
        training: Sessions with gold that `pair-clusters` learns from; none of them are scored.
        encoder: Encoder for `embedding-clusters` and `pair-clusters`.

    Raises:
        SettingError: A threshold cannot be chosen.
    """
    # Each item's title once.
    titles = {(item.id, item.title) for one in catalogue for item in one.items if item.title}
    words = TfidfEncoder(title for _, title in sorted(titles))
    pairs = fit_pairs(training, encoder)
    found: dict[str, Baseline] = {
        "whole-session": whole,
        "first-two": first_two,
        "all-pairs": all_pairs,
        **{f"category-{depth}": SameCategory(depth) for depth in (1, 2, 3)},
        "title-clusters": tune_clusters(words, tuning, TITLE_THRESHOLDS),
        "embedding-clusters": tune_clusters(encoder, tuning, EMBEDDING_THRESHOLDS),
    }
    if pairs is not None:
        found["pair-clusters"] = tune_clusters(encoder, tuning, EMBEDDING_THRESHOLDS, pairs)
    return found


def score_baselines(
    score: Callable[..., System],
    scored: Sequence[Session],
    empty: Sequence[Session],
    training: Sequence[Session],
    validation: Sequence[Session],
    catalogue: Sequence[Session],
    encoder: TitleEncoder,
) -> tuple[System, ...]:
    """Score all baselines.

    Args:
        score: Scores the answers of a named system, with its ``config``, like any other system's.
        scored: The sessions with gold bundles that it scores; nothing is learned from them.
        empty: Those annotated as holding no bundle.
        training: As in `evaluate`.
        validation: As in `evaluate`; if none has gold, thresholds are chosen on training sessions.
        catalogue: All sessions of the data set.
        encoder: Encoder of titles.

    Raises:
        SettingError: A threshold cannot be chosen.
    """
    answered = [*scored, *empty]
    ids = {session.id for session in answered}
    unseen = [session for session in training if session.gold and session.id not in ids]
    known = [session for session in validation if session.gold]
    # A small data set may have no gold in validation; training sessions are just as unseen.
    split, tuning, learnable = ("val", known, unseen) if known else ("train", unseen, [])
    titled = [one for one in learnable if all(has_title(item) for item in one.items)]
    tuned = {"tuned_on": split, "tuned_on_sessions": len(tuning)}
    untitled = count_untitled(scored)
    systems = []
    for name, baseline in make_baselines(catalogue, tuning, titled, encoder).items():
        config: dict[str, Any] = {}
        if isinstance(baseline, SameCategory):
            bare = sum(not item.categories for session in scored for item in session.items)
            # An item without a category stays out of every bundle, as if it had been dropped.
            config = {"depth": baseline.depth, "items_without_category": bare, "leaks": bare > 0}
        if not isinstance(baseline, Clusters):
            systems.append(score(name, _answers(baseline, answered), config=config))
            continue
        config = {"learnt_from_sessions": len(titled)} if baseline.pairs else {}
        if untitled:
            config |= {"items_without_title": untitled, "leaks": True}
        config |= {"threshold": baseline.threshold, **tuned}
        baseline.encode_titles(answered)
        system = score(name, _answers(baseline, answered), config=config)
        systems.append(replace(system, empties_curve=baseline.curve(answered)))
    return tuple(systems)


def _answers(baseline: Baseline, sessions: Sequence[Session]) -> list[Answer]:
    """The answers of a baseline; its bundles have no intents."""
    return [
        Answer(
            session.id,
            tuple(
                Bundle(tuple(item.id for item in session.items if item.id in items))
                for items in baseline(session)
            ),
        )
        for session in sessions
    ]


def count_untitled(sessions: Sequence[Session]) -> int:
    """Items without a title, once per session that holds them."""
    return sum(not has_title(item) for session in sessions for item in session.items)
