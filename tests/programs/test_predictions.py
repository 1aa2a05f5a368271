import dspy

from routedk.programs.predictions import central_prediction
from routedk.types import Bundle


def answer(*bundles: str) -> tuple[Bundle, ...]:
    """Bundles from texts such as ``12 tea``."""
    made = []
    for text in bundles:
        numbers, _, intent = text.partition(" ")
        made.append(Bundle(tuple(f"s-{n}" for n in numbers), intent))
    return tuple(made)


def central(*answers: tuple[Bundle, ...]) -> tuple[Bundle, ...]:
    predictions = [dspy.Prediction(bundles=bundles, error=None) for bundles in answers]
    found: tuple[Bundle, ...] = central_prediction(predictions).bundles
    return found


def test_the_answer_that_others_are_most_like_wins() -> None:
    # Sums of F1 against the others: .94, 1.39, 1.11 and .22.
    wins = answer("123", "45")
    assert central(answer("12", "34"), wins, answer("123"), answer("56")) == wins


def test_of_equal_answers_the_first_wins() -> None:
    assert central(answer("12"), answer("34")) == answer("12")
    assert central(()) == ()
