"""Which prompts a compilation tries: instruction, patterns, rules, neighbours, thoughts."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from routedk.programs.knowledge.context import NeighbourStyle

# Proposals of chance in a row, seen before or too long, after which nothing new is expected.
_PATIENCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeChoice:
    """One candidate for a program's prompt.

    Args:
        instruction: Place of the instruction among those given; None for the student's own.
        rules: Places in the knowledge base of the rules that may be shown, in the order shown;
            ascending where ``rules_shown`` orders them by nearness.
        rules_shown: How many of them each prompt shows, the nearest to its session; None for
            all.
        patterns: Number of patterns that each prompt shows, the nearest to its session.
        k: Number of neighbours shown.
        show_thoughts: Neighbours are shown with their thoughts.
        style: How neighbours are shown.
    """

    instruction: int | None = None
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
        instructions: Number of instructions beside the student's own.
        rules: Number of rules in the knowledge base.
        rules_shown: Numbers of nearest rules shown where not all are, at least one.
        ks: Numbers of neighbours above 0; empty where there are no neighbours.
        thoughts: There are thoughts to show.
        styles: Styles to try, at least one.
        patterns: Number of nearest patterns shown; 0 where there are no patterns.
    """

    instructions: int = 0
    rules: int
    rules_shown: tuple[int, ...]
    ks: tuple[int, ...]
    thoughts: bool
    styles: tuple[NeighbourStyle, ...]
    patterns: int = 0

    def with_rules(
        self, choice: KnowledgeChoice, rules: tuple[int, ...], shown: int | None
    ) -> KnowledgeChoice:
        """The choice with these rules, all in this order or only the ``shown`` nearest ones."""
        if shown is None or len(rules) <= shown:
            return replace(choice, rules=rules, rules_shown=None)
        return replace(choice, rules=tuple(sorted(rules)), rules_shown=shown)

    def with_neighbours(self, choice: KnowledgeChoice, k: int) -> KnowledgeChoice:
        """The choice with ``k`` neighbours; the first come with thoughts and the first style."""
        if not k:
            return replace(choice, k=0, show_thoughts=False, style=KnowledgeChoice().style)
        if choice.k:
            return replace(choice, k=k)
        return replace(choice, k=k, show_thoughts=self.thoughts, style=self.styles[0])


def _fits(choice: KnowledgeChoice) -> bool:
    return True


def propose(
    space: KnowledgeSpace,
    best: Callable[[], KnowledgeChoice],
    rng: random.Random,
    fits: Callable[[KnowledgeChoice], bool] = _fits,
) -> Iterator[KnowledgeChoice]:
    """Candidates, none twice, until the space or the patience is exhausted.

    First one decision after the other, each on top of the best so far: each instruction,
    neighbours with their thoughts, the nearest rules, the nearest patterns, no thoughts, more
    neighbours, all rules, style, other numbers of nearest rules. Then random changes of the best
    so far, small ones first: a rule more or less, some rules in some order, two rules the other
    way round, and the decisions above.

    Args:
        space: What may be chosen from.
        best: The best candidate so far; asked again for each proposal.
        rng: The source of all chance.
        fits: Whether a candidate may be tried; the others are passed over.
    """
    seen = {KnowledgeChoice()}
    for choice in _stream(space, best, rng):
        if choice not in seen:
            seen.add(choice)
            if fits(choice):
                yield choice


def _stream(
    space: KnowledgeSpace, best: Callable[[], KnowledgeChoice], rng: random.Random
) -> Iterator[KnowledgeChoice]:
    every = tuple(range(space.rules))
    for place in range(space.instructions):
        yield replace(best(), instruction=place)
    for k in space.ks[:1]:
        yield space.with_neighbours(best(), k)
    yield space.with_rules(best(), every, space.rules_shown[0])
    if space.patterns:
        yield replace(best(), patterns=space.patterns)
    if best().k:
        yield replace(best(), show_thoughts=False)
    for k in space.ks[1:]:
        yield space.with_neighbours(best(), k)
    yield space.with_rules(best(), every, None)
    for style in space.styles[1:]:
        if best().k:
            yield replace(best(), style=style)
    for shown in space.rules_shown[1:]:
        yield space.with_rules(best(), every, shown)
    # The longer nothing new turns up, the farther from the best.
    for attempt in range(_PATIENCE):
        choice = best()
        for _ in range(1 + attempt // 50):
            choice = _changed(choice, space, rng)
        yield choice


def _changed(choice: KnowledgeChoice, space: KnowledgeSpace, rng: random.Random) -> KnowledgeChoice:
    """The choice with one decision made differently; without neighbours nothing about them."""
    decisions = ["instruction"] * bool(space.instructions) + ["k"] * bool(space.ks)
    decisions += ["rule", "rule", "rules"] * bool(space.rules)
    if len(choice.rules) > 1 and choice.rules_shown is None:
        decisions.append("order")
    if len(choice.rules) > min(space.rules_shown):
        decisions.append("nearest")
    decisions += ["patterns"] * bool(space.patterns)
    if choice.k:
        decisions += ["thoughts"] * space.thoughts + ["style"] * (len(space.styles) > 1)
    if not decisions:
        return choice
    decision = rng.choice(decisions)
    if decision == "instruction":
        return replace(choice, instruction=rng.choice((None, *range(space.instructions))))
    if decision in ("rule", "rules", "order"):
        rules = _other_rules(choice, space, decision, rng)
        return space.with_rules(choice, rules, choice.rules_shown)
    if decision == "nearest":
        return space.with_rules(choice, choice.rules, rng.choice((None, *space.rules_shown)))
    if decision == "patterns":
        return replace(choice, patterns=0 if choice.patterns else space.patterns)
    if decision == "thoughts":
        return replace(choice, show_thoughts=not choice.show_thoughts)
    if decision == "style":
        return replace(choice, style=rng.choice(space.styles))
    return space.with_neighbours(choice, rng.choice((0, *space.ks)))


def _other_rules(
    choice: KnowledgeChoice, space: KnowledgeSpace, decision: str, rng: random.Random
) -> tuple[int, ...]:
    """One rule more or less, some rules in some order, or two of them the other way round."""
    if decision == "rules":
        return tuple(rng.sample(range(space.rules), rng.randint(1, space.rules)))
    rules = list(choice.rules)
    if decision == "order":
        one, other = rng.sample(range(len(rules)), 2)
        rules[one], rules[other] = rules[other], rules[one]
        return tuple(rules)
    place = rng.randrange(space.rules)
    if place in rules:
        rules.remove(place)
    else:
        rules.insert(rng.randint(0, len(rules)), place)
    return tuple(rules)
