from pathlib import Path

import pytest

from routedk.adapters.lm import resolve_lm
from routedk.errors import SettingError


def test_which_language_model() -> None:
    with pytest.raises(SettingError, match="--lm x: --dtype is for the student, leave it out"):
        resolve_lm("x", dtype="bfloat16")
    with pytest.raises(SettingError, match="--lm x: --experts is for the student"):
        resolve_lm("x", Path("experts"))


def test_a_model_of_litellm_is_asked_without_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    lm = resolve_lm("openai/gpt-4o-mini")
    assert (lm.model, lm.cache) == ("openai/gpt-4o-mini", False)
    assert lm.kwargs["temperature"] == 0
    assert resolve_lm("openai/o3-mini").kwargs["temperature"] is None
    with pytest.raises(SettingError, match="'nonsense' is no LiteLLM name"):
        resolve_lm("nonsense")
