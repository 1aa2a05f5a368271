import re
from typing import Any

import pytest
from pydantic import ValidationError

from routedk.optimizers.search.settings import TrialSettings

TRAINED: dict[str, Any] = {"fusion": "softmax", "r": 8, "learning_rate": 1e-3, "epochs": 2}
ALONE = {**TRAINED, "fusion": "single:base", "experts": ("base",)}


def test_settings_survive_json() -> None:
    settings = TrialSettings(
        formats=("rule", "thought"),
        utilization="SFT+ICL",
        experts=("base", "rule"),
        neighbours=2,
        **TRAINED,
    )
    assert TrialSettings(**settings.to_dict()) == settings
    assert settings.use.trains
    assert settings.use.prompts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"formats": ("rule", "pattern"), "rules": 1}, "each once, in the order pattern, rule"),
        ({"utilization": "SFT+ICL", **ALONE}, "no formats under SFT+ICL"),
        ({"ratio": 0.5}, "nothing is distilled, leave both"),
        ({"fusion": "softmax"}, "ICL trains no experts, but fusion='softmax'"),
        ({"utilization": "SFT"}, "fusion, experts, r, learning_rate, epochs must be given"),
        ({"utilization": "SFT", **ALONE, "fusion": "top1"}, "it can be 'single:base' only"),
        ({"utilization": "SFT", **TRAINED, "experts": ("rule",)}, "the first must be base"),
        ({"utilization": "SFT", **TRAINED, "experts": ("base", "rule")}, "no rule is distilled"),
        (
            {
                "utilization": "SFT",
                "formats": ("rule",),
                **TRAINED,
                "experts": ("base", "rule"),
                "fusion": "single:thought",
            },
            "the experts are base, rule",
        ),
        ({"utilization": "SFT", **ALONE, "neighbours": 1}, "SFT shows nothing in the prompt"),
        ({"rules": 4}, "no rule is distilled"),
        ({"formats": ("rule",)}, "rule is distilled, but neither shown"),
        ({"formats": ("thought",)}, "thought is distilled, but neither shown"),
        ({"utilization": "SFT", "formats": ("pattern",), **ALONE}, "pattern is distilled, but"),
        (
            {
                "utilization": "SFT+ICL",
                "formats": ("rule",),
                **TRAINED,
                "experts": ("base", "rule"),
            },
            "SFT+ICL shows no knowledge in the prompt",
        ),
        ({"ratio": 0.0}, "greater than 0"),
        ({"sketch": True}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        TrialSettings(**values)
