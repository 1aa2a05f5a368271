"""From what was chosen to a program that shows it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from routedk.optimizers.choices import KnowledgeChoice, KnowledgeSpace
from routedk.optimizers.prompt_length import TokenCounter
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.context import NeighbourStyle
from routedk.types import KnowledgeBase, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The programs that a compilation may try.

    Args:
        student: What they are copies of.
        knowledge: What they may show, in place of the student's own.
        training: Sessions with gold that they may show as neighbours.
        instructions: Instructions that may stand in place of the student's own.
        retriever: How neighbours are found, see `CompiledKnowledge`.
    """

    student: BundleGenerator
    knowledge: KnowledgeBase
    training: tuple[Session, ...]
    instructions: tuple[str, ...]
    retriever: str
    _thoughts: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find thoughts by their session."""
        thoughts = {thought.session_id: thought.text for thought in self.knowledge.thoughts}
        object.__setattr__(self, "_thoughts", thoughts)

    def space(
        self,
        *,
        ks: Sequence[int],
        rules_shown: Sequence[int],
        patterns_shown: int,
        styles: Sequence[NeighbourStyle],
    ) -> KnowledgeSpace:
        """What of the settings there is anything to choose from for."""
        return KnowledgeSpace(
            instructions=len(self.instructions),
            rules=len(self.knowledge.rules),
            rules_shown=tuple(rules_shown),
            ks=tuple(k for k in ks if k <= len(self.training)),
            thoughts=any(session.id in self._thoughts for session in self.training),
            styles=tuple(styles),
            patterns=min(patterns_shown, len(self.knowledge.patterns)),
        )

    def build(self, choice: KnowledgeChoice | None) -> BundleGenerator:
        """A copy of the student that shows what was chosen; for None the student as it is."""
        program: BundleGenerator = self.student.deepcopy()
        if choice is None:
            return program
        program.knowledge = CompiledKnowledge(
            rules=tuple(self.knowledge.rules[place].text for place in choice.rules),
            rules_shown=choice.rules_shown,
            patterns=self.knowledge.patterns if choice.patterns else (),
            patterns_shown=choice.patterns or None,
            k=choice.k,
            sessions=self.training if choice.k else (),
            thoughts=self._thoughts if choice.show_thoughts else {},
            show_thoughts=choice.show_thoughts,
            style=choice.style,
            retriever=self.retriever,
        )
        if choice.instruction is not None:
            text = self.instructions[choice.instruction]
            program.generate.signature = program.generate.signature.with_instructions(text)
        return program

    def record(self, choice: KnowledgeChoice | None) -> dict[str, Any] | None:
        """What was chosen, as JSON: instructions by their text, rules by their places."""
        if choice is None:
            return None
        place = choice.instruction
        text = None if place is None else self.instructions[place]
        return {**asdict(choice), "instruction": text, "rules": list(choice.rules)}


def longest_prompt(
    program: BundleGenerator, sessions: Sequence[Session], count: TokenCounter
) -> int:
    """Tokens of the longest prompt of these sessions, at least one."""
    return max(count(program.messages(session)) for session in sessions)
