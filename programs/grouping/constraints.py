"""A catalogue's rules as constraints on the candidate groupings of one session."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from routedk.rules import BundleRules
from routedk.types import Bundle, Item, Kind, Session

Cluster: TypeAlias = frozenset[int]

# Larger clusters are not trimmed: their parts are candidates as well, and bundles are small.
_MOST_TRIMMED = 20
# Far above any mean of distances: clusters that break a rule are merged after all others.
_FAR = 1e6


@dataclass(eq=False)
class Constraints:
    """What a session's clusters must satisfy.

    Args:
        rules: The catalogue's rules.
        session: The session.
        items: Its items that may be in a bundle; clusters are sets of positions in this sequence,
            counted from 0.
        logits: Logits of the pairs of these items.
        kind_of: Gives the kind of a cluster; called only if there is a rule about kinds.

    Attributes:
        groups: The clusters of items pinned together.
    """

    rules: BundleRules
    session: Session
    items: Sequence[Item]
    logits: NDArray[np.float64]
    kind_of: Callable[[Cluster], Kind | None]

    def __post_init__(self) -> None:
        self._places = {item.id: place for place, item in enumerate(self.items)}
        self.groups = [*map(self._cluster, self.rules.groups(self._places.keys()))]
        self._clashes = self.rules.clashes(self.items)
        # The same clusters are parts of many candidates.
        self._fitted = cache(self._fit)

    def distances(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distances at which pinned items merge first, and items that must be apart merge last."""
        found = distances.copy()
        for group in self.groups:
            places = sorted(group)
            found[np.ix_(places, places)] = 0.0
        for pair in self._clashes:
            one, other = self._cluster(pair)
            found[one, other] = found[other, one] = _FAR
        return found

    def feasible(self, candidates: Iterable[Sequence[Cluster]]) -> list[tuple[Cluster, ...]]:
        """The candidates made feasible: no cluster breaks a rule, and pinned items are together.

        A cluster that breaks a rule is replaced by its most closely tied part that breaks none,
        or left out. A pinned group that may be a bundle is added if it is in none.
        """
        pinned = [group for group in self.groups if self._fitted(group) == group]
        found: dict[frozenset[Cluster], tuple[Cluster, ...]] = {}
        for candidate in [*candidates, ()]:
            kept = [part for cluster in candidate if (part := self._fitted(cluster))]
            kept += [group for group in pinned if not any(group & part for part in kept)]
            if kept:
                found.setdefault(frozenset(kept), tuple(kept))
        covered = {one: sum(map(len, self._covered(one))) for one in found.values()}
        most = max(covered.values(), default=0)
        return [one for one, count in covered.items() if count == most]

    def satisfied(self, bundles: Sequence[Bundle]) -> bool:
        """Whether bundles break no rule, and all pinned items are together."""
        if not all(one.items <= self._places.keys() for one in bundles):
            return False
        clusters = [self._cluster(one.items) for one in bundles]
        whole = len(self._covered(clusters)) == len(self.groups)
        return whole and all(self._fitted(cluster) == cluster for cluster in clusters)

    def _cluster(self, ids: Iterable[str]) -> Cluster:
        return frozenset(self._places[name] for name in ids)

    def _covered(self, candidate: Sequence[Cluster]) -> list[Cluster]:
        return [group for group in self.groups if any(group <= one for one in candidate)]

    def _fit(self, cluster: Cluster) -> Cluster | None:
        """The part of a cluster that breaks no rule; None if there is none."""
        while self._breaks(cluster):
            # Items pinned together are left out together.
            tied = [group & cluster for group in self.groups]
            units = [*tied, *(frozenset((place,)) for place in sorted(cluster.difference(*tied)))]
            smaller = [part for unit in units if 1 < len(part := cluster - unit) < len(cluster)]
            if not smaller or len(cluster) > _MOST_TRIMMED:
                return None
            whole = [part for part in smaller if not self._breaks(part)]
            cluster = max(whole or smaller, key=self._tie)
        kinds = self.rules.kinds
        return cluster if not kinds or self.kind_of(cluster) in kinds else None

    def _breaks(self, cluster: Cluster) -> bool:
        names = [self.items[place].id for place in sorted(cluster)]
        return bool(self.rules.broken(self.session, names, clashes=self._clashes))

    def _tie(self, cluster: Cluster) -> float:
        """The mean logit of a cluster's pairs."""
        pairs = [*zip(*combinations(sorted(cluster), 2), strict=True)]
        return float(self.logits[pairs[0], pairs[1]].mean())


def told(
    rules: BundleRules,
    session: Session,
    before: Sequence[Bundle],
    pinned: Sequence[Bundle],
    after: Sequence[Bundle],
) -> tuple[tuple[Bundle, ...], tuple[str, ...]]:
    """What the rules changed in a session's bundles, each change with its reason.

    Args:
        rules: The catalogue's rules.
        session: The session.
        before: The bundles that would have been chosen without rules.
        pinned: The items pinned together, as bundles.
        after: The bundles that were chosen.

    Returns:
        The bundles of ``after``, each with the items it lost and gained relative to the nearest
        one of ``before``; and the other items that lost their bundle, or are pinned but in none.
    """
    every = [*before, *pinned]
    broken = {one.items: rules.broken(session, one.item_ids, one.kind) for one in every}
    pins = {one.items: f"{' and '.join(map(repr, one.item_ids))} are pinned" for one in pinned}
    causes = [reason for one in before for reason in broken[one.items]] + [*pins.values()]

    def because(names: Iterable[str], reasons: Iterable[str]) -> str:
        why = "; ".join(dict.fromkeys(reasons)) or f"grouped again, because {causes[0]}"
        return f"{', '.join(map(repr, names))}: {why}"

    def nearest(bundle: Bundle) -> frozenset[str]:
        met = (one.items for one in before if one.items & bundle.items)
        return max(met, key=lambda items: len(items & bundle.items), default=frozenset())

    def changed(bundle: Bundle) -> Iterator[str]:
        was, ids = nearest(bundle), [item.id for item in session.items]
        if gone := was - bundle.items:
            yield f"left out {because([i for i in ids if i in gone], broken[was])}"
        if new := bundle.items - was:
            own = [why for items, why in pins.items() if items & new]
            yield f"added {because([i for i in ids if i in new], own)}"

    kept = {name for one in after for name in one.item_ids}
    met = [nearest(one) for one in after]
    lost = []
    for one in {one.items: one for one in [*before, *pinned]}.values():
        gone = [name for name in one.item_ids if name not in kept]
        if gone and one.items not in met:
            lost.append(f"no bundle of {because(gone, broken[one.items])}")
    return tuple(replace(one, changed=tuple(changed(one))) for one in after), tuple(lost)
