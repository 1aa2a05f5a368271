import random
from dataclasses import replace
from itertools import islice

from routedk.optimizers.choices import KnowledgeChoice, KnowledgeSpace, propose

SPACE = KnowledgeSpace(
    rules=4, rules_shown=(3,), ks=(1, 2), thoughts=True, styles=("demos", "blocks")
)


def first(
    space: KnowledgeSpace, best: KnowledgeChoice, count: int, seed: int = 0
) -> list[KnowledgeChoice]:
    return list(islice(propose(space, lambda: best, random.Random(seed)), count))


def test_one_decision_after_the_other_on_top_of_the_best() -> None:
    best = KnowledgeChoice(k=1, show_thoughts=True)
    every = (0, 1, 2, 3)
    assert first(SPACE, best, 6) == [
        best,
        replace(best, rules=every, rules_shown=3),
        replace(best, show_thoughts=False),
        replace(best, k=2),
        replace(best, rules=every),
        replace(best, style="blocks"),
    ]


def test_patterns_are_tried_after_the_rules() -> None:
    best = KnowledgeChoice(k=1, show_thoughts=True)
    space = replace(SPACE, patterns=3)
    rules = replace(best, rules=(0, 1, 2, 3), rules_shown=3)
    patterned = replace(best, patterns=3)
    assert first(space, best, 4) == [best, rules, patterned, replace(best, show_thoughts=False)]
    assert space.with_neighbours(patterned, 0) == KnowledgeChoice(patterns=3)
    assert any(not choice.patterns for choice in first(space, patterned, 40)[6:])
    assert not any(choice.patterns for choice in first(SPACE, best, 40))


def test_each_decision_starts_from_nothing_where_nothing_helps() -> None:
    assert first(SPACE, KnowledgeChoice(), 4) == [
        KnowledgeChoice(k=1, show_thoughts=True),
        KnowledgeChoice(rules=(0, 1, 2, 3), rules_shown=3),
        KnowledgeChoice(k=2, show_thoughts=True),
        KnowledgeChoice(rules=(0, 1, 2, 3)),
    ]


def test_all_of_few_rules_are_not_called_the_nearest() -> None:
    for best in (KnowledgeChoice(), KnowledgeChoice(rules=(0, 1, 2, 3), rules_shown=3)):
        for choice in first(SPACE, best, 60):
            assert choice.rules_shown is None or len(choice.rules) > choice.rules_shown


def test_none_twice_none_empty_and_seeded() -> None:
    best = KnowledgeChoice(rules=(1,), k=1)
    choices = first(SPACE, best, 15)
    assert len(set(choices)) == len(choices) == 15
    assert KnowledgeChoice() not in choices
    assert choices == first(SPACE, best, 15)
    assert choices != first(SPACE, best, 15, seed=1)


def test_without_neighbours_nothing_is_decided_about_them() -> None:
    for choice in first(SPACE, KnowledgeChoice(), 50):
        assert choice.k or (choice.style == "demos" and not choice.show_thoughts)


def test_an_empty_space_ends() -> None:
    empty = KnowledgeSpace(rules=0, rules_shown=(3,), ks=(), thoughts=False, styles=("demos",))
    assert first(empty, KnowledgeChoice(), 5) == []
    small = KnowledgeSpace(rules=1, rules_shown=(3,), ks=(1,), thoughts=False, styles=("demos",))
    assert len(first(small, KnowledgeChoice(k=1), 50)) == 3


def test_instructions_come_first_and_other_numbers_of_rules_last() -> None:
    space = replace(SPACE, instructions=2, rules_shown=(3, 1), styles=("demos",))
    best = KnowledgeChoice(instruction=0)
    every = (0, 1, 2, 3)
    assert first(space, best, 6) == [
        best,
        replace(best, instruction=1),
        replace(best, k=1, show_thoughts=True),
        replace(best, rules=every, rules_shown=3),
        replace(best, k=2, show_thoughts=True),
        replace(best, rules=every),
    ]
    assert first(space, best, 7)[6] == replace(best, rules=every, rules_shown=1)
    assert {choice.instruction for choice in first(space, best, 60)[7:]} >= {None, 1}


def test_which_rules_how_many_and_in_what_order() -> None:
    best = KnowledgeChoice(rules=(0, 1, 2, 3))
    tried = [choice for choice in first(SPACE, best, 300) if choice.rules_shown is None]
    rules = {choice.rules for choice in tried}
    assert {len(some) for some in rules} == {0, 1, 2, 3, 4}
    assert (1, 0, 2, 3) in rules
    assert any(list(some) != sorted(some) for some in rules if len(some) == 3)
    nearest = first(SPACE, replace(best, rules_shown=3), 100)
    assert all(list(c.rules) == sorted(c.rules) for c in nearest if c.rules_shown is not None)


def test_what_does_not_fit_is_passed_over() -> None:
    def fits(choice: KnowledgeChoice) -> bool:
        return len(choice.rules) < 2

    best = KnowledgeChoice(rules=(1,))
    some = list(islice(propose(SPACE, lambda: best, random.Random(0), fits), 12))
    assert len(some) == 12
    assert all(map(fits, some))
    none = propose(SPACE, lambda: best, random.Random(0), lambda choice: False)
    assert list(none) == []
