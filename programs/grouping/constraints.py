"""The rules of a catalogue as constraints on the candidate groupings of one session."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from routedk.rules import Breach, BundleRules
from routedk.types import Bundle, Item, Kind, Session

Cluster: TypeAlias = frozenset[int]

# Larger clusters are not trimmed: their parts are candidates, too, and bundles are small.
_MOST_TRIMMED = 20
# Far above any mean of distances: clusters that break a rule are merged after all others.
_FAR = 1e6


class Constraints:
    """What a session's clusters must satisfy.

    Args:
        rules: Of the catalogue.
        items: In the order of the places that clusters are made of; none of them is barred.
        logits: Of their pairs.
        kind_of: The kind of a cluster; asked only where there is a rule about it.

    Attributes:
        groups: What is pinned together.
    """

    def __init__(
        self,
        rules: BundleRules,
        items: Sequence[Item],
        logits: NDArray[np.float64],
        kind_of: Callable[[Cluster], Kind | None],
    ) -> None:
        self._rules = rules
        self._session = Session("", tuple(items)) if items else None
        self._items = items
        self._logits = logits
        self._kind_of = kind_of
        self._places = {item.id: place for place, item in enumerate(items)}
        self.groups = [
            frozenset(self._places[name] for name in group)
            for group in rules.groups(self._places.keys())
        ]
        # The same clusters are parts of many candidates.
        self._fitted = cache(self._fit)

    def distances(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distances at which pinned items merge first, and those that may not meet last."""
        found = distances.copy()
        for group in self.groups:
            places = sorted(group)
            found[np.ix_(places, places)] = 0.0
        for one, other in combinations(range(len(self._items)), 2):
            if self._rules.clash(self._items[one], self._items[other]):
                found[one, other] = found[other, one] = _FAR
        return found

    def feasible(self, candidates: Iterable[Sequence[Cluster]]) -> list[tuple[Cluster, ...]]:
        """The candidates with clusters that break no rule, and with all that is pinned.

        A cluster that breaks one is replaced by the part of it that breaks none and is tied most,
        or left out. Pinned items that may be a bundle are added where they are in none.
        """
        pinned = [group for group in self.groups if self._fitted(group) == group]
        found = {}
        for candidate in [*candidates, ()]:
            kept = [part for cluster in candidate if (part := self._fitted(cluster))]
            kept += [group for group in pinned if not any(group & part for part in kept)]
            if kept:
                found.setdefault(frozenset(kept), tuple(kept))
        covered = {one: sum(map(len, self._covered(one))) for one in found.values()}
        most = max(covered.values(), default=0)
        return [one for one, count in covered.items() if count == most]

    def only_pinned(self, candidates: Iterable[Sequence[Cluster]]) -> list[tuple[Cluster, ...]]:
        """The candidates with those clusters alone that hold pinned items."""
        kept = (
            tuple(c for c in one if any(group <= c for group in self.groups)) for one in candidates
        )
        return list(dict.fromkeys(filter(None, kept)))

    def satisfied(self, bundles: Sequence[Bundle]) -> bool:
        """Whether bundles break no rule, and all that is pinned is together."""
        if not all(one.items <= self._places.keys() for one in bundles):
            return False
        clusters = [frozenset(self._places[name] for name in one.items) for one in bundles]
        whole = len(self._covered(clusters)) == len(self.groups)
        return whole and all(self._fitted(cluster) == cluster for cluster in clusters)

    def _covered(self, candidate: Sequence[Cluster]) -> list[Cluster]:
        return [group for group in self.groups if any(group <= one for one in candidate)]

    def _fit(self, cluster: Cluster) -> Cluster | None:
        """The part of a cluster that breaks no rule; None where there is none."""
        while self._breaks(cluster):
            smaller = [cluster - unit for unit in self._units(cluster)]
            smaller = [part for part in smaller if len(part) > 1]
            if not smaller or len(cluster) > _MOST_TRIMMED:
                return None
            whole = [part for part in smaller if not self._breaks(part)]
            cluster = max(whole or smaller, key=self._tie)
        kinds = self._rules.kinds
        return cluster if not kinds or self._kind_of(cluster) in kinds else None

    def _breaks(self, cluster: Cluster) -> bool:
        return bool(self._rules.broken(self._session, (self._items[k].id for k in sorted(cluster))))

    def _units(self, cluster: Cluster) -> Iterator[Cluster]:
        """What is left out as a whole: pinned items together, others one by one."""
        tied = [group & cluster for group in self.groups if group & cluster]
        yield from tied
        yield from (frozenset((place,)) for place in sorted(cluster.difference(*tied)))

    def _tie(self, cluster: Cluster) -> float:
        """The mean logit of the pairs of a cluster."""
        places = sorted(cluster)
        inside = self._logits[np.ix_(places, places)]
        return float(inside[np.triu_indices(len(places), k=1)].mean())


class Changes:
    """What the rules changed in the bundles of a session, each with its reason.

    Args:
        rules: Of the catalogue.
        session: The session.
        before: What would have been chosen without rules.
        pinned: What is pinned together, as bundles.
        after: The bundles that were chosen.
    """

    def __init__(
        self,
        rules: BundleRules,
        session: Session,
        before: Sequence[Bundle],
        pinned: Sequence[Bundle],
        after: Sequence[Bundle],
    ) -> None:
        self._rules = rules
        self._session = session
        self._before = before
        wanted = {one.items: one for one in [*before, *pinned]}.values()
        self._gone = [o for o in wanted if not any(o.items & other.items for other in after)]
        first = next((reason for one in before for reason in self._reasons(one)), "")
        names = " and ".join(repr(name) for one in pinned[:1] for name in one.item_ids)
        self._again = f"grouped again, because {first or f'{names} are pinned'}"

    def of(self, bundle: Bundle) -> tuple[str, ...]:
        """Which items were left out of a bundle, and which were added."""
        met = [one for one in self._before if one.items & bundle.items]
        was = max(met, key=lambda one: len(one.items & bundle.items), default=None)
        earlier = was.items if was else frozenset[str]()
        broken = self._broken(was) if was else []
        said: dict[tuple[str, str], list[str]] = {}
        for item in self._session.items:
            if (item.id in earlier) == (item.id in bundle.items):
                continue
            # What speaks against the bundle with this item, or without it.
            other = self._rules.broken(self._session, bundle.items ^ {item.id})
            own = [one.reason for one in [*broken, *other] if item.id in one.items]
            found = own or [o.reason for o in broken if not o.items]
            found = found or [o.reason for o in other if not o.items] or [self._again]
            verb = "left out" if item.id in earlier else "added"
            why = "; ".join(dict.fromkeys(found))
            said.setdefault((verb, why), []).append(repr(item.id))
        return tuple(f"{verb} {', '.join(names)}: {why}" for (verb, why), names in said.items())

    def lost(self) -> tuple[str, ...]:
        """Of which items there is no bundle any more, or none though they are pinned."""
        return tuple(
            f"no bundle of {', '.join(map(repr, one.item_ids))}: "
            + ("; ".join(self._reasons(one)) or self._again)
            for one in self._gone
        )

    def _broken(self, bundle: Bundle) -> list[Breach]:
        return self._rules.broken(self._session, bundle.item_ids, bundle.kind)

    def _reasons(self, bundle: Bundle) -> list[str]:
        return [breach.reason for breach in self._broken(bundle)]
