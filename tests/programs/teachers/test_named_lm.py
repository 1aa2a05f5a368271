import pytest

from routedk.programs.distill_plan import plan_distill
from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.named_lm import refuses_temperature, teacher_lm
from routedk.types import Session


def test_a_dry_run_says_once_that_a_reasoning_model_takes_no_temperature(
    training: list[Session], caplog: pytest.LogCaptureFixture
) -> None:
    refuses_temperature.cache_clear()
    for _ in range(2):
        assert plan_distill(training, DistillConfig(teacher="openai/o3-mini"))
    assert caplog.text.count("openai/o3-mini takes no temperature: none is sent") == 1
    lm = teacher_lm(DistillConfig(teacher="openai/o3-mini"))
    assert (lm.kwargs["temperature"], lm.kwargs["max_completion_tokens"]) == (None, 16_000)
