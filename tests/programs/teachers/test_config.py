from pathlib import Path
from typing import Any

import pytest

from routedk.errors import SettingError
from routedk.programs.teachers.config import DistillConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ("rule", "tips")}, "formats='tips': allowed are pattern, rule, thought"),
        ({"answers": (Path("a"),), "max_tokens": 9}, "max_tokens is for teachers that are asked"),
        ({"strategy": "best"}, "strategy='best': allowed are random, length, diversity, dif"),
        ({"scores": "s.jsonl"}, "scores are for the strategy difficulty, and the strategy is 'ran"),
        ({"max_rules": -1}, "max_rules=-1: it must be at least 0"),
        ({"max_patterns": -1}, "max_patterns=-1: it must be at least 0"),
        ({"threads": 0}, "threads=0: it must be at least 1"),
        ({"seed": -1}, "seed=-1: it must be at least 0"),
        ({"ratio": 1.5}, r"ratio=1.5: it must be in \(0, 1\]"),
        ({"min_support": 0}, r"min_support=0: it must be in \(0, 1\]"),
        ({"max_tokens": 0}, "max_tokens=0: it must be at least 1"),
        ({"max_cost": 0.0}, "max_cost=0.0: it must be above 0"),
        ({"max_cost": float("nan")}, "max_cost=nan: it must be above 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        DistillConfig(**settings)


def test_formats_stand_in_the_order_in_which_they_build_on_each_other() -> None:
    named = DistillConfig(formats=("thought", "pattern"))
    assert named.formats == ("pattern", "thought")
    assert (named.makes("thought"), named.makes("rule")) == (True, False)
    assert DistillConfig().makes("answer")
