from dataclasses import replace
from itertools import islice

from routedk.optimizers.prompt_space import PromptChoice, PromptSpace
from routedk.types import KnowledgeBase, Provenance, Rule, Thought

from .injected import sessions

MADE = Provenance(teacher="annotation")
SPACE = PromptSpace(
    knowledge=KnowledgeBase(
        rules=tuple(Rule(text=f"rule {n}", provenance=MADE) for n in range(4)),
        thoughts=(Thought(session_id="train-0", text="why", provenance=MADE),),
    ),
    training=tuple(sessions("train", 2)),
)


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
        replace(best, rules=1),
    ]


def test_nothing_is_proposed_twice_and_no_empty_choice() -> None:
    assert proposed(PromptSpace(knowledge=KnowledgeBase()), PromptChoice()) == []
    one = KnowledgeBase(rules=SPACE.knowledge.rules[:1])
    space = PromptSpace(knowledge=one, training=SPACE.training[:1])
    assert proposed(space, PromptChoice()) == [PromptChoice(k=1), PromptChoice(rules=1)]
