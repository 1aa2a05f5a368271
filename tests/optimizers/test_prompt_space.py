from dataclasses import replace
from itertools import islice

from routedk.optimizers.prompt_space import PromptChoice, PromptSpace
from routedk.programs.generator import BundleGenerator
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, Thought

from .injected import sessions

MADE = Provenance(teacher="annotation")
SPACE = PromptSpace(
    knowledge=KnowledgeBase(
        rules=tuple(Rule(text=f"rule {n}", provenance=MADE) for n in range(4)),
        thoughts=(Thought(session_id="train-0", text="why", provenance=MADE),),
    ),
    training=tuple(sessions("train", 2)),
)
PATTERN = Pattern(categories=("a", "b"), support=0.1, confidence=0.5, lift=2.0, provenance=MADE)


def proposed(space: PromptSpace, best: PromptChoice) -> list[PromptChoice]:
    return list(islice(space.propose(lambda: best), 50))


def test_one_decision_after_the_other_on_top_of_the_best() -> None:
    best = PromptChoice(k=1, show_thoughts=True)
    assert proposed(SPACE, best) == [
        best,
        replace(best, rules=3),
        replace(best, show_thoughts=False),
        replace(best, k=2),
        replace(best, rules=4),
        replace(best, style="blocks"),
        replace(best, rules=1),
    ]


def test_instructions_come_first_and_patterns_after_the_rules() -> None:
    knowledge = replace(SPACE.knowledge, patterns=(PATTERN,) * 4)
    space = replace(SPACE, instructions=("a", "b"), knowledge=knowledge)
    best = PromptChoice(instruction="a")
    assert proposed(space, best) == [
        best,
        replace(best, instruction="b"),
        replace(best, k=1, show_thoughts=True),
        replace(best, rules=3),
        replace(best, patterns=3),
        replace(best, k=2, show_thoughts=True),
        replace(best, rules=4),
        replace(best, rules=1),
    ]


def test_nothing_is_proposed_twice_and_no_empty_choice() -> None:
    assert proposed(PromptSpace(knowledge=KnowledgeBase()), PromptChoice()) == []
    one = KnowledgeBase(rules=SPACE.knowledge.rules[:1])
    space = PromptSpace(knowledge=one, training=SPACE.training[:1])
    assert proposed(space, PromptChoice()) == [PromptChoice(k=1), PromptChoice(rules=1)]


def test_a_choice_becomes_a_program() -> None:
    student = BundleGenerator()
    choice = PromptChoice(instruction="Go.", rules=2, k=1, show_thoughts=True, style="blocks")
    program = SPACE.build(student, choice)
    assert program.generate.signature.instructions == "Go."
    knowledge = program.knowledge
    assert (len(knowledge.rules), knowledge.rules_shown) == (4, 2)
    assert (knowledge.k, knowledge.sessions, knowledge.style) == (1, SPACE.training, "blocks")
    assert knowledge.thoughts == {"train-0": "why"}
    assert SPACE.build(student, PromptChoice(rules=4)).knowledge.rules_shown is None
    assert SPACE.build(student, None).knowledge == student.knowledge
    assert [c.informed for c in (choice, PromptChoice(k=1))] == [True, False]
