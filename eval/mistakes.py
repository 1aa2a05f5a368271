"""Mistakes in predicted bundles: the five kinds of AICL's feedback."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from routedk.eval.protocols import ItemSets, jaccard

Kind: TypeAlias = Literal["correct", "invalid", "contains irrelevant", "misses some", "too small"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one predicted bundle compares with the nearest gold bundle.

    Args:
        predicted: The predicted items.
        kind: What is right or wrong with it, see `judge`.
        gold: The nearest gold bundle: one that holds all of it, else one that shares two items,
            else one that shares one; among these, the one of highest Jaccard. None if no gold
            bundle shares an item.
        irrelevant: Predicted items that are not in that gold bundle.
        missing: Items of that gold bundle that were not predicted.
    """

    predicted: frozenset[str]
    kind: Kind
    gold: frozenset[str] | None
    irrelevant: frozenset[str]
    missing: frozenset[str]


def judge(gold: ItemSets, predicted: Sequence[Collection[str]]) -> list[Verdict]:
    """Assign each predicted bundle one of the five kinds.

    ==================== =========================================================================
    correct              the same items as a gold bundle
    too small            fewer than two items
    misses some          a proper subset of a gold bundle
    contains irrelevant  at least two items of one gold bundle, and others that are not in it
    invalid              no two of its items are together in a gold bundle
    ==================== =========================================================================

    Args:
        gold: Gold bundles of one session.
        predicted: Predicted bundles of the same session, as stated: single items are allowed here,
            so that bundles that are too small are recognized.

    Returns:
        One verdict per predicted bundle, in their order.

    Source: AICL, arXiv 2312.16262, names the kinds; the boundaries between them are ours.
    """
    return [_judge(gold, frozenset(items)) for items in predicted]


def _judge(gold: ItemSets, predicted: frozenset[str]) -> Verdict:
    def nearness(g: frozenset[str]) -> tuple[bool, bool, float]:
        return predicted <= g, len(predicted & g) >= 2, jaccard(g, predicted)

    nearest = max(gold, key=nearness, default=frozenset[str]())
    shared = nearest & predicted
    if not shared:
        nearest = shared
    kind: Kind
    if len(predicted) < 2:
        kind = "too small"
    elif predicted == nearest:
        kind = "correct"
    elif predicted < nearest:
        kind = "misses some"
    elif len(shared) >= 2:
        kind = "contains irrelevant"
    else:
        kind = "invalid"
    return Verdict(
        predicted=predicted,
        kind=kind,
        gold=nearest or None,
        irrelevant=predicted - nearest,
        missing=nearest - predicted,
    )
