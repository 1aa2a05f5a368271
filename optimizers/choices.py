"""Which knowledge a compilation tries: patterns, rules, neighbours, thoughts, and in what order."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from routedk.programs.knowledge.context import NeighbourStyle


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeChoice:
    """One candidate for a program's prompt.

    Args:
        rules: Places in the knowledge base of the rules that may be shown, ascending.
        rules_shown: How many of them each prompt shows, the nearest to its session; None for
            all.
        patterns: Number of patterns that each prompt shows, the nearest to its session.
        k: Number of neighbours shown.
        show_thoughts: Neighbours are shown with their thoughts.
        style: How neighbours are shown.
    """

    rules: tuple[int, ...] = ()
    rules_shown: int | None = None
    patterns: int = 0
    k: int = 0
    show_thoughts: bool = False
    style: NeighbourStyle = "demos"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeSpace:
    """What may be chosen from.

    Args:
        rules: Number of rules in the knowledge base.
        rules_shown: Number of nearest rules shown where not all are.
        ks: Numbers of neighbours above 0; empty where there are no neighbours.
        thoughts: There are thoughts to show.
        styles: Styles to try, at least one.
        patterns: Number of nearest patterns shown; 0 where there are no patterns.
    """

    rules: int
    rules_shown: int
    ks: tuple[int, ...]
    thoughts: bool
    styles: tuple[NeighbourStyle, ...]
    patterns: int = 0

    def with_rules(
        self, choice: KnowledgeChoice, rules: tuple[int, ...], nearest: bool
    ) -> KnowledgeChoice:
        """The choice with these rules, all of them or the nearest ones."""
        shown = self.rules_shown if nearest and len(rules) > self.rules_shown else None
        return replace(choice, rules=rules, rules_shown=shown)

    def with_neighbours(self, choice: KnowledgeChoice, k: int) -> KnowledgeChoice:
        """The choice with ``k`` neighbours; the first come with thoughts and the first style."""
        if not k:
            return replace(choice, k=0, show_thoughts=False, style=KnowledgeChoice().style)
        if choice.k:
            return replace(choice, k=k)
        return replace(choice, k=k, show_thoughts=self.thoughts, style=self.styles[0])


def propose(
    space: KnowledgeSpace, best: Callable[[], KnowledgeChoice], rng: random.Random
) -> Iterator[KnowledgeChoice]:
    """Candidates, none twice, until the space or the patience is exhausted.

    First one decision after the other, each on top of the best so far: neighbours with their
    thoughts, the nearest rules, the nearest patterns, no thoughts, more neighbours, all rules,
    style. Then random changes of the best so far, small ones first.

    Args:
        space: What may be chosen from.
        best: The best candidate so far; asked again for each proposal.
        rng: The source of all chance.
    """
    seen = {KnowledgeChoice()}
    for choice in _stream(space, best, rng):
        if choice not in seen:
            seen.add(choice)
            yield choice


def _stream(
    space: KnowledgeSpace, best: Callable[[], KnowledgeChoice], rng: random.Random
) -> Iterator[KnowledgeChoice]:
    every = tuple(range(space.rules))
    for k in space.ks[:1]:
        yield space.with_neighbours(best(), k)
    yield space.with_rules(best(), every, nearest=True)
    if space.patterns:
        yield replace(best(), patterns=space.patterns)
    if best().k:
        yield replace(best(), show_thoughts=False)
    for k in space.ks[1:]:
        yield space.with_neighbours(best(), k)
    yield space.with_rules(best(), every, nearest=False)
    for style in space.styles[1:]:
        if best().k:
            yield replace(best(), style=style)
    # The longer nothing new turns up, the farther from the best.
    for attempt in range(1000):
        choice = best()
        for _ in range(1 + attempt // 50):
            choice = _changed(choice, space, rng)
        yield choice


def _changed(choice: KnowledgeChoice, space: KnowledgeSpace, rng: random.Random) -> KnowledgeChoice:
    """The choice with one decision made differently; without neighbours nothing about them."""
    decisions = ["rules"] * (2 if space.rules else 0) + ["k"] * bool(space.ks)
    if len(choice.rules) > space.rules_shown:
        decisions.append("nearest")
    decisions += ["patterns"] * bool(space.patterns)
    if choice.k:
        decisions += ["thoughts"] * space.thoughts + ["style"] * (len(space.styles) > 1)
    if not decisions:
        return choice
    decision = rng.choice(decisions)
    nearest = choice.rules_shown is not None
    if decision == "rules":
        flipped = set(choice.rules) ^ {rng.randrange(space.rules)}
        return space.with_rules(choice, tuple(sorted(flipped)), nearest)
    if decision == "nearest":
        return space.with_rules(choice, choice.rules, not nearest)
    if decision == "patterns":
        return replace(choice, patterns=0 if choice.patterns else space.patterns)
    if decision == "thoughts":
        return replace(choice, show_thoughts=not choice.show_thoughts)
    if decision == "style":
        return replace(choice, style=rng.choice(space.styles))
    return space.with_neighbours(choice, rng.choice((0, *space.ks)))
