from collections.abc import Callable

import dspy
import pytest

from routedk.errors import AnswerError
from routedk.programs.prompting.item_intents import compose_bundles, read_item_intents
from routedk.programs.teachers.thought_distiller import guiding_rules, problem_of, think
from routedk.types import Session
from tests.scripted import answering

Make = Callable[..., Session]


def thought_of(
    session: Session, *answers: str, rules: tuple[str, ...] = ()
) -> tuple[str, list[str]]:
    """The thought, and the questions."""
    lm, engine = answering(*answers)
    with dspy.context(lm=lm):
        found = think(session, guiding_rules(rules))
    return found, [request[-1]["content"] for request in engine.requests]


def test_a_right_thought_is_kept_in_one_form(tea: Session) -> None:
    answer = "Thought: 1 Brewing Tea; 2. brewing tea; 3 charging"
    found, (seen,) = thought_of(tea, answer, rules=("Kettles go with cups.",))
    assert found == "1 brewing tea; 2 brewing tea; 3 charging"
    assert "1 2 | brewing tea at home" in seen
    assert "Kettles go with cups." in seen


def test_reasoning_is_not_part_of_a_thought(tea: Session) -> None:
    found, _ = thought_of(tea, "1 kettle; 2 cup?\n</think>\n1 tea; 2 tea; 3 charging")
    assert found == "1 tea; 2 tea; 3 charging"


def test_a_wrong_thought_is_retried_once_with_its_problem(tea: Session) -> None:
    found, (_, retry) = thought_of(tea, "1 a; 2 b; 3 c", "1 a; 2 a; 3 c")
    assert found == "1 a; 2 a; 3 c"
    assert "1 a; 2 b; 3 c" in retry
    assert "1 2 are a bundle: give them, and only them, one intent" in retry


@pytest.mark.parametrize("answer", ["", "1 a; 2 b; 3 c"])
def test_wrong_again_it_is_an_error(answer: str, tea: Session) -> None:
    with pytest.raises(AnswerError, match="the thought is wrong: "):
        thought_of(tea, answer, answer)


@pytest.mark.parametrize(
    ("thought", "problem"),
    [
        ("1 x; 2 x; 3 x; 4 y; 5 y", ""),
        ("1 x; 2 x; 3 x / y; 4 y; 5 z", "4 5 are a bundle: give them, and only them, one intent"),
        ("1 x; 2 x; 3 x; 4 x; 5 x", "1 2 3 are a bundle: give them, and only them, one intent"),
        ("1 x; 2 x; 3 x; 4 y", "item 5 is named 0 times: name every item once"),
        ("1 x; 2 x; 3 x; 4 y; 4 y; 5 y", "item 4 is named 2 times: name every item once"),
        ("1 x; 2 x; 3 x; 4 y; 5 y; 6 y", "there is no item 6: the session has 5"),
        ("because they match", "'because they match' is not an item number with its intent"),
        ("1 x / z; 2 x / z; 3 x; 4 y; 5 y", "1 2 are no bundle: they must not share an intent"),
    ],
)
def test_what_is_wrong_with_a_thought(thought: str, problem: str, make: Make) -> None:
    session = make("s", list("abcde"), [((1, 2, 3), "x"), ((4, 5), "y")])
    assert problem_of(thought, session) == problem


def test_items_of_no_bundle_may_have_none(make: Make) -> None:
    session = make("s", list("abcd"), [((1, 2), "x")])
    assert problem_of("1 x; 2 x; 3 none; 4 none", session) == ""
    assert problem_of("1 none; 2 none; 3 none; 4 none", make("n", list("abcd"), [])) == ""


def test_overlapping_bundles_can_be_thought(make: Make) -> None:
    session = make("s", list("abc"), [((1, 2), "x"), ((2, 3), "y")])
    thought, _ = thought_of(session, "1 x; 2 x / y; 3 y")
    bundles = compose_bundles(read_item_intents(thought, 3), session)
    assert {b.items for b in bundles} == set(session.gold)
