"""Which knowledge a compilation tries: rules, neighbours, thoughts, and in what order."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from routedk.programs.context import NeighbourStyle


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeChoice:
    """One candidate for a program's prompt.

    Args:
        rules: Places of the rules shown in the knowledge base, ascending.
        k: Number of neighbours shown.
        show_thoughts: Neighbours are shown with their thoughts.
        style: How neighbours are shown.
    """

    rules: tuple[int, ...] = ()
    k: int = 0
    show_thoughts: bool = False
    style: NeighbourStyle = "demos"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeSpace:
    """What may be chosen from.

    Args:
        rules: Number of rules in the knowledge base.
        ks: Numbers of neighbours above 0; empty where there are no neighbours.
        thoughts: There are thoughts to show.
        styles: Styles to try, at least one.
    """

    rules: int
    ks: tuple[int, ...]
    thoughts: bool
    styles: tuple[NeighbourStyle, ...]


def propose(
    space: KnowledgeSpace, best: Callable[[], KnowledgeChoice], rng: random.Random
) -> Iterator[KnowledgeChoice]:
    """Candidates, none twice, until the space or the patience is exhausted.

    First one decision after the other, each on top of the best so far: neighbours, rules (all,
    the first third), thoughts, style. Then random changes of the best so far, small ones first.

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
    first = space.styles[0]
    for k in space.ks:
        yield KnowledgeChoice(k=k, style=first)
    for rules in (every, every[: -(-space.rules // 3)]):
        yield replace(best(), rules=rules)
    if space.thoughts and best().k:
        yield replace(best(), show_thoughts=True)
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
    if choice.k:
        decisions += ["thoughts"] * space.thoughts + ["style"] * (len(space.styles) > 1)
    if not decisions:
        return choice
    decision = rng.choice(decisions)
    if decision == "rules":
        flipped = set(choice.rules) ^ {rng.randrange(space.rules)}
        return replace(choice, rules=tuple(sorted(flipped)))
    if decision == "thoughts":
        return replace(choice, show_thoughts=not choice.show_thoughts)
    if decision == "style":
        return replace(choice, style=rng.choice(space.styles))
    k = rng.choice((0, *space.ks))
    return replace(choice, k=k) if k else KnowledgeChoice(rules=choice.rules)
