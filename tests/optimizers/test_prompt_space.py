import random
from collections.abc import Callable
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
EVERY = (0, 1, 2, 3)


def first(
    space: PromptSpace,
    best: PromptChoice,
    count: int,
    seed: int = 0,
    fits: Callable[[PromptChoice], bool] = lambda choice: True,
) -> list[PromptChoice]:
    return list(islice(space.propose(lambda: best, random.Random(seed), fits), count))


def test_one_decision_after_the_other_on_top_of_the_best() -> None:
    best = PromptChoice(k=1, show_thoughts=True)
    assert first(SPACE, best, 6) == [
        best,
        replace(best, rules=EVERY, rules_shown=3),
        replace(best, show_thoughts=False),
        replace(best, k=2),
        replace(best, rules=EVERY),
        replace(best, style="blocks"),
    ]


def test_instructions_come_first_and_other_numbers_of_rules_last() -> None:
    space = replace(SPACE, instructions=("a", "b"))
    best = PromptChoice(instruction="a")
    assert first(space, best, 7) == [
        best,
        replace(best, instruction="b"),
        replace(best, k=1, show_thoughts=True),
        replace(best, rules=EVERY, rules_shown=3),
        replace(best, k=2, show_thoughts=True),
        replace(best, rules=EVERY),
        replace(best, rules=EVERY, rules_shown=1),
    ]
    assert {choice.instruction for choice in first(space, best, 60)[7:]} >= {None, "b"}


def test_patterns_are_tried_after_the_rules() -> None:
    best = PromptChoice(k=1, show_thoughts=True)
    pattern = Pattern(categories=("a", "b"), support=0.1, confidence=0.5, lift=2.0, provenance=MADE)
    space = replace(SPACE, knowledge=replace(SPACE.knowledge, patterns=(pattern,) * 4))
    patterned = replace(best, patterns=3)
    tried = [best, replace(best, rules=EVERY, rules_shown=3), patterned]
    assert first(space, best, 3) == tried
    assert space.with_neighbours(patterned, 0) == PromptChoice(patterns=3)
    assert any(not choice.patterns for choice in first(space, patterned, 40)[6:])
    assert not any(choice.patterns for choice in first(SPACE, best, 40))


def test_none_twice_none_empty_and_seeded() -> None:
    best = PromptChoice(rules=(1,), k=1)
    choices = first(SPACE, best, 15)
    assert len(set(choices)) == len(choices) == 15
    assert PromptChoice() not in choices
    assert choices == first(SPACE, best, 15)
    assert choices != first(SPACE, best, 15, seed=1)


def test_choices_hold_together() -> None:
    for best in (PromptChoice(), PromptChoice(rules=EVERY, rules_shown=3)):
        for choice in first(SPACE, best, 60):
            assert choice.k or (choice.style == "demos" and not choice.show_thoughts)
            assert choice.rules_shown is None or len(choice.rules) > choice.rules_shown


def test_an_empty_space_ends() -> None:
    assert first(PromptSpace(knowledge=KnowledgeBase()), PromptChoice(), 5) == []
    one = KnowledgeBase(rules=SPACE.knowledge.rules[:1])
    space = PromptSpace(knowledge=one, training=SPACE.training[:1])
    # A rule or none, without a neighbour, or with one in two styles; but not nothing.
    assert len(first(space, PromptChoice(), 50)) == 5


def test_which_rules_how_many_and_in_what_order() -> None:
    best = PromptChoice(rules=EVERY)
    tried = [choice for choice in first(SPACE, best, 300) if choice.rules_shown is None]
    rules = {choice.rules for choice in tried}
    assert {len(some) for some in rules} == {0, 1, 2, 3, 4}
    assert (1, 0, 2, 3) in rules
    assert any(list(some) != sorted(some) for some in rules if len(some) == 3)
    nearest = first(SPACE, replace(best, rules_shown=3), 100)
    assert all(list(c.rules) == sorted(c.rules) for c in nearest if c.rules_shown is not None)


def test_what_does_not_fit_is_skipped() -> None:
    best = PromptChoice(rules=(1,))
    some = first(SPACE, best, 12, fits=lambda choice: len(choice.rules) < 2)
    assert len(some) == 12
    assert all(len(choice.rules) < 2 for choice in some)
    assert first(SPACE, best, 12, fits=lambda choice: False) == []


def test_a_choice_becomes_a_program() -> None:
    student = BundleGenerator()
    choice = PromptChoice(instruction="Go.", rules=(2, 0), k=1, show_thoughts=True, style="blocks")
    program = SPACE.build(student, choice)
    assert program.generate.signature.instructions == "Go."
    knowledge = program.knowledge
    assert (knowledge.rules, knowledge.rules_shown) == (("rule 2", "rule 0"), None)
    assert (knowledge.k, knowledge.sessions, knowledge.style) == (1, SPACE.training, "blocks")
    assert knowledge.thoughts == {"train-0": "why"}
    assert SPACE.build(student, None).knowledge == student.knowledge
    assert choice.record()["rules"] == [2, 0]
    assert [c.informed for c in (choice, PromptChoice(k=1))] == [True, False]
