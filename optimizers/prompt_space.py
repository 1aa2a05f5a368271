"""`PromptSpace`: the prompts that a compilation may try, and in which order it tries them."""

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.context import NeighbourStyle
from routedk.types import KnowledgeBase, Session

# Numbers of neighbours and of nearest rules to try, the first ones first; of nearest patterns.
KS = (1, 2)
RULES_SHOWN = (3, 1, 6)
PATTERNS_SHOWN = 3
STYLES: tuple[NeighbourStyle, ...] = ("demos", "blocks")
# Random proposals in a row, seen before or too long, after which nothing new is expected.
_PATIENCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptChoice:
    """One candidate for a program's prompt.

    Args:
        instruction: The instruction; None for the student's own.
        rules: Places in the knowledge base of the rules that may be shown, in the order shown;
            ascending where ``rules_shown`` orders them by nearness.
        rules_shown: How many of them each prompt shows, the nearest to its session; None for
            all.
        patterns: Number of patterns that each prompt shows, the nearest to its session.
        k: Number of neighbours shown.
        show_thoughts: Whether neighbours are shown with their thoughts.
        style: How neighbours are shown.
    """

    instruction: str | None = None
    rules: tuple[int, ...] = ()
    rules_shown: int | None = None
    patterns: int = 0
    k: int = 0
    show_thoughts: bool = False
    style: NeighbourStyle = "demos"

    @property
    def informed(self) -> bool:
        """Whether the prompt shows distilled knowledge; neighbours alone are examples."""
        return bool(self.rules or self.patterns or self.show_thoughts)

    def record(self) -> dict[str, Any]:
        """The choice as JSON."""
        return {**asdict(self), "rules": list(self.rules)}


@dataclass(frozen=True, kw_only=True)
class PromptSpace:
    """What may be chosen from.

    Args:
        knowledge: Rules, patterns and thoughts; they replace those of the student.
        training: Sessions with gold that may be shown as neighbours.
        instructions: Instructions to try beside the student's own.
        retriever: How neighbours are found, see `CompiledKnowledge`.
    """

    knowledge: KnowledgeBase
    training: tuple[Session, ...] = ()
    instructions: tuple[str, ...] = ()
    retriever: str = "tfidf"

    @cached_property
    def ks(self) -> tuple[int, ...]:
        """Numbers of neighbours to try."""
        return tuple(k for k in KS if k <= len(self.training))

    @cached_property
    def patterns(self) -> int:
        """The number of nearest patterns to try; 0 where there are no patterns."""
        return min(PATTERNS_SHOWN, len(self.knowledge.patterns))

    @cached_property
    def every_rule(self) -> tuple[int, ...]:
        """The places of all rules."""
        return tuple(range(len(self.knowledge.rules)))

    @cached_property
    def thoughts(self) -> dict[str, str]:
        """The thoughts of training sessions, by the session's id."""
        known = {session.id for session in self.training}
        thoughts = self.knowledge.thoughts
        return {each.session_id: each.text for each in thoughts if each.session_id in known}

    def build(self, student: BundleGenerator, choice: PromptChoice | None) -> BundleGenerator:
        """A copy of the student with the chosen prompt; None leaves it the student's own."""
        program: BundleGenerator = student.deepcopy()
        if choice is None:
            return program
        program.knowledge = CompiledKnowledge(
            rules=tuple(self.knowledge.rules[place].text for place in choice.rules),
            rules_shown=choice.rules_shown,
            patterns=self.knowledge.patterns if choice.patterns else (),
            patterns_shown=choice.patterns or None,
            k=choice.k,
            sessions=self.training if choice.k else (),
            thoughts=self.thoughts if choice.show_thoughts else {},
            show_thoughts=choice.show_thoughts,
            style=choice.style,
            retriever=self.retriever,
        )
        if choice.instruction is not None:
            signature = program.generate.signature
            program.generate.signature = signature.with_instructions(choice.instruction)
        return program

    def exactly(self, neighbours: int, rules: int, patterns: int) -> PromptChoice:
        """The choice that shows these numbers, or as many as there are."""
        choice = PromptChoice(patterns=min(patterns, len(self.knowledge.patterns)))
        choice = self.with_neighbours(choice, min(neighbours, len(self.training)))
        return self.with_rules(choice, self.every_rule if rules else (), rules)

    def with_rules(
        self, choice: PromptChoice, rules: tuple[int, ...], shown: int | None
    ) -> PromptChoice:
        """The choice with these rules, all in this order or only the ``shown`` nearest ones."""
        if shown is None or len(rules) <= shown:
            return replace(choice, rules=rules, rules_shown=None)
        return replace(choice, rules=tuple(sorted(rules)), rules_shown=shown)

    def with_neighbours(self, choice: PromptChoice, k: int) -> PromptChoice:
        """The choice with ``k`` neighbours; the first come with thoughts and the first style."""
        if not k:
            return replace(choice, k=0, show_thoughts=False, style="demos")
        if choice.k:
            return replace(choice, k=k)
        return replace(choice, k=k, show_thoughts=bool(self.thoughts), style=STYLES[0])

    def propose(
        self,
        best: Callable[[], PromptChoice],
        rng: random.Random,
        fits: Callable[[PromptChoice], bool] = lambda choice: True,
    ) -> Iterator[PromptChoice]:
        """Candidates, none twice, until the space or the patience is exhausted.

        First one decision after the other, each on top of the best so far: each instruction,
        neighbours with their thoughts, the nearest rules, the nearest patterns, no thoughts, more
        neighbours, all rules, style, other numbers of nearest rules. Then random changes of the
        best so far, small ones first: a rule more or less, some rules in some order, and the
        decisions above.

        Args:
            best: The best candidate so far; asked again for each proposal.
            rng: The source of all randomness.
            fits: Whether a candidate may be tried; the others are skipped.
        """
        seen = {PromptChoice()}
        for choice in self._proposals(best, rng):
            if choice not in seen:
                seen.add(choice)
                if fits(choice):
                    yield choice

    def _proposals(
        self, best: Callable[[], PromptChoice], rng: random.Random
    ) -> Iterator[PromptChoice]:
        for instruction in self.instructions:
            yield replace(best(), instruction=instruction)
        for k in self.ks[:1]:
            yield self.with_neighbours(best(), k)
        yield self.with_rules(best(), self.every_rule, RULES_SHOWN[0])
        if self.patterns:
            yield replace(best(), patterns=self.patterns)
        if best().k:
            yield replace(best(), show_thoughts=False)
        for k in self.ks[1:]:
            yield self.with_neighbours(best(), k)
        yield self.with_rules(best(), self.every_rule, None)
        for style in STYLES[1:]:
            if best().k:
                yield replace(best(), style=style)
        for shown in RULES_SHOWN[1:]:
            yield self.with_rules(best(), self.every_rule, shown)
        # The longer nothing new turns up, the farther from the best.
        for attempt in range(_PATIENCE):
            choice = best()
            for _ in range(1 + attempt // 50):
                choice = self._changed(choice, rng)
            yield choice

    def _changed(self, choice: PromptChoice, rng: random.Random) -> PromptChoice:
        """The choice with one decision made differently; without neighbours none about them."""
        decisions = ["instruction"] * bool(self.instructions) + ["k"] * bool(self.ks)
        decisions += ["rule", "rule", "rules"] * bool(self.every_rule)
        decisions += ["patterns"] * bool(self.patterns)
        if choice.k:
            decisions += ["thoughts"] * bool(self.thoughts) + ["style"]
        match rng.choice(decisions) if decisions else None:
            case "instruction":
                return replace(choice, instruction=rng.choice((None, *self.instructions)))
            case "k":
                return self.with_neighbours(choice, rng.choice((0, *self.ks)))
            case "rule":
                rules = self._one_more_or_less(choice.rules, rng)
                return self.with_rules(choice, rules, choice.rules_shown)
            case "rules":
                some = rng.sample(self.every_rule, rng.randint(1, len(self.every_rule)))
                return self.with_rules(choice, tuple(some), rng.choice((None, *RULES_SHOWN)))
            case "patterns":
                return replace(choice, patterns=0 if choice.patterns else self.patterns)
            case "thoughts":
                return replace(choice, show_thoughts=not choice.show_thoughts)
            case "style":
                return replace(choice, style=rng.choice(STYLES))
        return choice

    def _one_more_or_less(self, chosen: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
        rules, place = list(chosen), rng.choice(self.every_rule)
        if place in rules:
            rules.remove(place)
        else:
            rules.insert(rng.randint(0, len(rules)), place)
        return tuple(rules)
