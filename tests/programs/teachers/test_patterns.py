from collections.abc import Callable
from typing import Any

import pytest

from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.patterns import mine_patterns
from routedk.types import Pattern, Session

TEA, MUG, USB, LAMP = ("Home", "Tea"), ("Home", "Mugs"), ("Tech", "USB"), ("Lamps",)


def mined(sessions: list[Session], **settings: Any) -> tuple[Pattern, ...]:
    return mine_patterns(sessions, DistillConfig(**settings))


@pytest.fixture
def sessions(make: Callable[..., Session]) -> list[Session]:
    titles = ["a", "b", "c", "d"]
    paths = [TEA, MUG, USB, LAMP]
    return [
        make("s1", titles, [((1, 2), "x")], paths),
        make("s2", titles, [((1, 2), "x"), ((3, 4), "y")], paths),
        make("s3", titles, [((1, 3), "z")], paths),
        make("s4", titles, [], paths),
        make("s5", titles, None, paths),
    ]


def test_by_hand(sessions: list[Session]) -> None:
    """Four bundles: {Tea, Mugs} twice, {USB, Lamps} and {Tea, USB} once."""
    [pattern] = mined(sessions)
    assert pattern.categories == ("Mugs", "Tea")
    assert pattern.support == 2 / 4
    assert pattern.confidence == 1.0
    assert pattern.lift == pytest.approx((2 / 4) / (3 / 4 * 2 / 4))
    assert pattern.provenance.sessions == ("s1", "s2")
    assert pattern.provenance.teacher == "annotation"


def test_bounded(sessions: list[Session]) -> None:
    assert mined(sessions, max_patterns=0) == ()
    assert mined(sessions, min_support=0.75) == ()


def test_without_bundles_or_categories(make: Callable[..., Session]) -> None:
    assert mined([]) == ()
    assert mined([make("s", ["a", "b"], [])]) == ()
    assert mined([make("s", ["a", "b"], [((1, 2), "")])]) == ()
    one = make("s", ["a", "b"], [((1, 2), "")], [TEA, MUG])
    assert mined([one]) == ()
