import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from routedk.errors import SettingError
from routedk.programs.teachers.patterns import leaf_category, mine_patterns
from routedk.types import Session

TEA, MUG, USB, LAMP = ("Home", "Tea"), ("Home", "Mugs"), ("Tech", "USB"), ("Lamps",)


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
    [pattern] = mine_patterns(sessions)
    assert pattern.categories == ("Mugs", "Tea")
    assert pattern.support == 2 / 4
    assert pattern.confidence == 1.0
    assert pattern.lift == pytest.approx((2 / 4) / (3 / 4 * 2 / 4))
    assert pattern.provenance.sessions == ("s1", "s2")
    assert pattern.provenance.teacher == "annotation"


def test_bounded(sessions: list[Session]) -> None:
    assert mine_patterns(sessions, limit=0) == ()
    assert mine_patterns(sessions, min_support=0.75) == ()


def test_without_bundles_or_categories(make: Callable[..., Session]) -> None:
    assert mine_patterns([]) == ()
    assert mine_patterns([make("s", ["a", "b"], [])]) == ()
    assert mine_patterns([make("s", ["a", "b"], [((1, 2), "")])]) == ()
    one = make("s", ["a", "b"], [((1, 2), "")], [TEA, MUG])
    assert mine_patterns([one]) == ()


def test_leaf_category_is_harmless() -> None:
    assert leaf_category(("Home", "Tea\n<|x|>")) == "Tea /x/"
    assert leaf_category(()) == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_support": 0}, "min_support=0: it must be in"),
        ({"max_categories": 1}, "max_categories=1: it must be at least 2"),
        ({"limit": -1}, "limit=-1: it must be at least 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, int], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        mine_patterns([], **settings)  # type: ignore[arg-type]


def test_the_same_in_every_process() -> None:
    code = (
        "from routedk.data import demo_sessions\n"
        "from routedk.programs.teachers.patterns import mine_patterns\n"
        "print([(p.categories, p.lift) for p in mine_patterns(demo_sessions())])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
