from typing import Any

import dspy
import pytest

from routedk.errors import SettingError
from routedk.optimizers.feedback import feedback_metric
from routedk.optimizers.metric import as_examples
from routedk.programs.generator import BundleGenerator
from routedk.types import Bundle, Item, Session
from tests.scripted import scripted_lm

TITLES = ("Kettle", "Filters", "Cup", "USB cable", "USB hub", "Socks")


def judged(answer: str, *gold: Bundle) -> tuple[float, list[str]]:
    items = tuple(Item(f"i{n}", title) for n, title in enumerate(TITLES, start=1))
    [example] = as_examples([Session("s", items, gold)])
    lm, _ = scripted_lm(lambda messages: answer)
    with dspy.context(lm=lm):
        prediction = BundleGenerator()(session=example.session)
    found: Any = feedback_metric(example, prediction, None, "generate", None)
    head, *lines = found.feedback.split("\n")
    assert head == f"Score {found.score:.2f} of 1 (matched F1 of the bundles)."
    return found.score, lines


COFFEE, USB = Bundle(("i1", "i2", "i3"), "brew coffee"), Bundle(("i4", "i5"), "usb | gear")


def test_right_wrong_and_missed() -> None:
    score, lines = judged("3 1 2 | x\n4 6", COFFEE, USB)
    assert score == pytest.approx((1 + 1 / 3) / 2)
    assert lines == [
        'Right: 1 "Kettle", 2 "Filters", 3 "Cup" are a bundle (brew coffee).',
        'Invented: 4 "USB cable", 6 "Socks"; no two of these items belong together.',
        'Missed: 4 "USB cable", 5 "USB hub" are a bundle (usb / gear), but none of the stated '
        "ones comes near it.",
    ]


def test_items_wrong_and_lacking() -> None:
    _, lines = judged("1 2\n4 5 6", COFFEE, USB)
    assert lines == [
        'Wrong: 1 "Kettle", 2 "Filters". The bundle meant (brew coffee) also holds 3 "Cup".',
        'Wrong: 4 "USB cable", 5 "USB hub", 6 "Socks". The bundle meant (usb / gear) does not '
        'hold 6 "Socks".',
    ]
    _, lines = judged("1 2 6", COFFEE)
    assert lines == [
        'Wrong: 1 "Kettle", 2 "Filters", 6 "Socks". The bundle meant (brew coffee) does not hold '
        '6 "Socks" and also holds 3 "Cup".'
    ]


def test_too_small_and_what_was_not_used() -> None:
    _, lines = judged("1 2 3\n5\n4 9", COFFEE)
    assert lines[1:] == [
        'Too small: 5 "USB hub" alone; a bundle has at least two items.',
        'Too small: 4 "USB cable" alone; a bundle has at least two items.',
        "Not used of the answer: fewer than two items: 5; no such item: 9; fewer than two items: "
        "4 9.",
    ]


def test_no_bundle() -> None:
    assert judged("none") == (
        1.0,
        [
            "The answer states no bundle.",
            "In this session no items belong together: the right answer is none.",
        ],
    )
    score, lines = judged("none", Bundle(("i1", "i2")))
    assert score == 0.0
    assert lines[1].startswith('Missed: 1 "Kettle", 2 "Filters" are a bundle, but none')


def test_an_answer_that_cannot_be_read() -> None:
    score, lines = judged("blah", COFFEE)
    assert score == 0.0
    assert lines[0].startswith("The answer could not be read: no bundle in the answer 'blah'")
    assert lines[0].endswith('It must be one line per bundle, item numbers | intent, or "none".')
    assert lines[1].startswith("Missed: 1")


def test_answers_of_other_programs_are_judged_too() -> None:
    [example] = as_examples([Session("s", (Item("a", "A"), Item("b", "")), (Bundle(("a", "b")),))])
    found = feedback_metric(example, dspy.Prediction(bundles=[Bundle(("b", "a"))]))
    assert found.feedback.split("\n")[1:] == ['Right: 1 "A", 2 "untitled" are a bundle.']


def test_gold_is_needed() -> None:
    [example] = as_examples([Session("s", (Item("a", "A"),))])
    with pytest.raises(SettingError, match="session 's' has no gold to judge answers by"):
        feedback_metric(example, dspy.Prediction(bundles=[]))
