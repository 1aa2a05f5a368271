import re
from pathlib import Path
from typing import Any

import pytest

from routedk.artifacts import Recipe, content_hash
from routedk.artifacts import recipe as recipe_module
from routedk.errors import SettingError


def recipe(**changes: Any) -> Recipe:
    usual: dict[str, Any] = {
        "stage": "experts",
        "inputs": {"sessions": "ab"},
        "settings": {"r": 8, "layers": [1, 2]},
    }
    return Recipe(**{**usual, **changes})


def test_a_key_is_the_sha256_of_canonical_json() -> None:
    # printf '{"a":[1,2.5,null],"b":"\u00e9"}' | sha256sum
    assert content_hash({"b": "é", "a": (1, 2.5, None)}) == (
        "41a039b5a690a0e490a416507920c9993f5d12a59eb496d685026408ea22b407"
    )
    assert re.fullmatch("[0-9a-f]{64}", recipe().key)
    assert recipe().key == content_hash(recipe().to_dict())


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"settings": {"layers": (1, 2), "r": 8}}, True),
        ({"stage": "router"}, False),
        ({"inputs": {"sessions": "ac"}}, False),
        ({"inputs": {"session": "ab"}}, False),
        ({"settings": {"r": 8, "layers": [2, 1]}}, False),
        ({"settings": {"r": 8.0, "layers": [1, 2]}}, False),
        ({"settings": {"r": 8}}, False),
    ],
)
def test_everything_in_a_recipe_is_in_its_key(changes: dict[str, Any], same: bool) -> None:
    assert (recipe(**changes).key == recipe().key) is same


def test_another_version_of_routedk_makes_other_artifacts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = recipe().key
    monkeypatch.setattr(recipe_module, "__version__", "99")
    assert recipe().key != before


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), Path("x")])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(SettingError, match="cannot be part of a key"):
        content_hash({"a": value})


def test_half_a_surrogate_pair_has_a_hash() -> None:
    assert content_hash("\ud83d") != content_hash("?")
