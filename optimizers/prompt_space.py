"""`PromptSpace`: the prompts that compilation may try, and in which order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from routedk.optimizers.compile_config import CompileConfig
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session

# How many neighbours and nearest rules to try, in this order; how many nearest patterns.
KS = (1, 2)
RULES_SHOWN = (3, 1, 6)
PATTERNS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptChoice:
    """One candidate for a program's prompt.

    Args:
        instruction: The instruction; None for the student's own.
        rules: Number of rules that each prompt shows, the nearest to its session.
        patterns: Number of patterns that each prompt shows, the nearest to its session.
        k: Number of neighbours shown.
        show_thoughts: Whether neighbours are shown with their thoughts.
    """

    instruction: str | None = None
    rules: int = 0
    patterns: int = 0
    k: int = 0
    show_thoughts: bool = False

    @property
    def informed(self) -> bool:
        """Whether the prompt shows distilled knowledge; neighbours alone are only examples."""
        return bool(self.rules or self.patterns or self.show_thoughts)


@dataclass(frozen=True, kw_only=True)
class PromptSpace:
    """The candidates for a program's prompt, proposed one after another.

    Args:
        knowledge: Rules, patterns and thoughts; they replace those of the student.
        training: Sessions with gold that may be shown as neighbours.
        instructions: Instructions to try in addition to the student's own.
        retriever: How neighbours are found, see `CompiledKnowledge`.
        naming: Whether prompts ask for the intents of bundles; such prompts show no patterns.
    """

    knowledge: KnowledgeBase
    training: tuple[Session, ...] = ()
    instructions: tuple[str, ...] = ()
    retriever: str = "tfidf"
    naming: bool = False

    @cached_property
    def thoughts(self) -> dict[str, str]:
        """The thoughts of training sessions, by the session's id."""
        known = {session.id for session in self.training}
        thoughts = self.knowledge.thoughts
        return {each.session_id: each.text for each in thoughts if each.session_id in known}

    def build(self, student: BundleGenerator, choice: PromptChoice | None) -> BundleGenerator:
        """A copy of the student with the chosen prompt; None keeps the student's own."""
        program: BundleGenerator = student.deepcopy()
        if choice is None:
            return program
        every_rule = tuple(rule.text for rule in self.knowledge.rules)
        program.knowledge = CompiledKnowledge(
            rules=every_rule if choice.rules else (),
            rules_shown=choice.rules if 0 < choice.rules < len(every_rule) else None,
            patterns=self.knowledge.patterns if choice.patterns else (),
            patterns_shown=choice.patterns or None,
            k=choice.k,
            sessions=self.training if choice.k else (),
            thoughts=self.thoughts if choice.show_thoughts else {},
            show_thoughts=choice.show_thoughts,
            retriever=self.retriever,
        )
        if choice.instruction is not None:
            predictor = program.namer.name if self.naming else program.generate
            predictor.signature = predictor.signature.with_instructions(choice.instruction)
        return program

    def fixed(self, config: CompileConfig) -> PromptChoice:
        """The choice with the numbers that a config sets, or as many as are available."""
        k = min(config.neighbours or 0, len(self.training))
        return PromptChoice(
            rules=min(config.rules or 0, len(self.knowledge.rules)),
            patterns=min(config.patterns or 0, len(self.knowledge.patterns)),
            k=k,
            show_thoughts=bool(k and self.thoughts),
        )

    def propose(self, best: Callable[[], PromptChoice]) -> Iterator[PromptChoice]:
        """Yield distinct candidates: one decision after another, each on top of the best so far.

        In order: each instruction, a neighbour with its thought, the nearest rules, the nearest
        patterns, no thoughts, more neighbours, all rules, other numbers of nearest rules.

        Args:
            best: Returns the best candidate so far; called again for each proposal.
        """
        seen = {PromptChoice()}
        for choice in self._decisions(best):
            if choice not in seen:
                seen.add(choice)
                yield choice

    def _decisions(self, best: Callable[[], PromptChoice]) -> Iterator[PromptChoice]:
        def neighbours(k: int) -> PromptChoice:
            if best().k:
                return replace(best(), k=k)
            return replace(best(), k=k, show_thoughts=bool(self.thoughts or self.naming))

        every_rule = len(self.knowledge.rules)
        ks = [k for k in KS if k <= len(self.training)]
        for instruction in self.instructions:
            yield replace(best(), instruction=instruction)
        for k in ks[:1]:
            yield neighbours(k)
        yield replace(best(), rules=min(RULES_SHOWN[0], every_rule))
        if not self.naming:
            yield replace(best(), patterns=min(PATTERNS_SHOWN, len(self.knowledge.patterns)))
        yield replace(best(), show_thoughts=False)
        for k in ks[1:]:
            yield neighbours(k)
        yield replace(best(), rules=every_rule)
        for shown in RULES_SHOWN[1:]:
            yield replace(best(), rules=min(shown, every_rule))
