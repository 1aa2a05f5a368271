"""What a training's config refuses."""

import math
from pathlib import Path
from typing import Any

import pytest

from routedk.adapters.train import TrainConfig
from routedk.adapters.training.stage import expert_stage
from routedk.errors import SettingError


@pytest.mark.parametrize(
    ("rows", "epochs"), [(0, 6.0), (400, 6.0), (625, 4.0), (1_250, 2.0), (9_999, 1.0)]
)
def test_the_more_rows_the_fewer_epochs(rows: int, epochs: float) -> None:
    assert expert_stage(TrainConfig(), first=True, rows=rows).epochs == epochs
    assert expert_stage(TrainConfig(epochs=5.0), first=True, rows=rows).epochs == 5.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0.0}, "epochs=0.0: must be above 0 and finite"),
        ({"learning_rate": math.inf}, "learning_rate=inf: must be above 0 and finite"),
        ({"batch_size": 0}, "batch_size=0: must be above 0"),
        ({"knowledge_share": 1.5}, "knowledge_share=1.5: must be at most 1"),
        ({"router_share": 0.0}, "router_share=0.0: must be above 0"),
        ({"temperature": 0.0}, "temperature=0.0: must be above 0 and finite"),
        ({"layers": -1}, "layers=-1: it must be at least 0"),
        ({"seed": -1}, "seed=-1: it must be at least 0"),
        ({"r": 0}, "r=0"),
        ({"expert_names": ("rule", "base")}, "base comes first, the others start from it"),
        ({"expert_names": ("base", "verse")}, "expert_names='verse': allowed are base, rule"),
        ({"answer_form": "prose"}, "answer_form='prose': allowed are bundle-intent, item-intents"),
        ({"utilization": "ICL"}, r"utilization='ICL': allowed are SFT, SFT\+ICL"),
        ({"router_input": "all"}, "router_input='all': allowed are session, prompt"),
        ({"experts_from": "end"}, "experts_from='end': allowed are start, session"),
        ({"fusion": "magic"}, "fusion 'magic': allowed are softmax, static"),
        ({"router_training": "luck"}, "router_training='luck': allowed are answer, supervised"),
        ({"fusion": "uniform", "experts": Path("e")}, "fusion 'uniform' has no router to train"),
        (
            {"fusion": "sparsegen", "router_training": "supervised"},
            r"fusion 'sparsegen' are per token.*use answer",
        ),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        TrainConfig(**values)
