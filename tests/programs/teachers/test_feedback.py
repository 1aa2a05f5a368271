from collections.abc import Callable

from routedk.programs.prompting.answers import read_answer
from routedk.programs.teachers.feedback import render_feedback, session_verdicts
from routedk.types import Session

Make = Callable[..., Session]


def feedback(make: Make, answer: str, gold: list[tuple[tuple[int, ...], str]]) -> list[str]:
    session = make("s", ["a", "b", "c", "d", "e", "f"], gold)
    parsed = read_answer(answer, session)
    verdicts = session_verdicts(session, parsed.bundles, parsed.lone)
    return render_feedback(session, verdicts).split("\n")


def test_each_kind_in_words(make: Make) -> None:
    gold = [((1, 2, 3), "x"), ((4, 5, 6), "y")]
    assert feedback(make, "3 1 2 | x\n5 4\n1 2 5\n3 6\n2", gold) == [
        "1 2 3: correct.",
        "4 5: misses some. 6 missing.",
        "1 2 5: contains irrelevant. 5 irrelevant; 3 missing.",
        "3 6: invalid. These items do not belong together.",
        "2: too small. A bundle has at least two items.",
    ]


def test_a_gold_bundle_that_nothing_came_near_is_told(make: Make) -> None:
    assert feedback(make, "1 2", [((1, 2), "x"), ((6, 5), "y")]) == [
        "1 2: correct.",
        "5 6: a bundle that was not stated.",
    ]
    assert feedback(make, "1 5", [((1, 2), "x")]) == [
        "1 5: invalid. These items do not belong together.",
        "1 2: a bundle that was not stated.",
    ]


def test_no_bundle(make: Make) -> None:
    assert feedback(make, "none", []) == ["No bundle was stated, and there is none."]
    assert feedback(make, "none", [((1, 2), "x")]) == ["1 2: a bundle that was not stated."]
