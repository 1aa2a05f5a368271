import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from routedk.errors import MissingExtraError, SettingError
from routedk.optimizers.search import tracking
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.tracking import TRACKERS, make_tracker, run_config, run_metrics

SETTINGS = TrialSettings(formats=("rule", "thought"), rules=4, neighbours=1)


@pytest.fixture
def trial() -> FrozenTrial:
    attrs = {"settings": SETTINGS.to_dict(), "f1": 0.5, "tokens": 80.0, "seconds": 2.0}
    return create_trial(
        state=TrialState.COMPLETE, values=[0.5], user_attrs={**attrs, "worker": {"pid": 1}}
    )


def test_a_run_holds_settings_and_scores_and_nothing_else(trial: FrozenTrial) -> None:
    assert run_config(trial) == {
        "formats": "rule+thought",
        "strategy": "random",
        "ratio": 1.0,
        "utilization": "ICL",
        "neighbours": 1,
        "rules": 4,
        "enhancement": "greedy",
    }
    assert run_metrics(trial) == {"f1": 0.5, "tokens": 80.0, "seconds": 2.0}


def test_none_tracks_nothing_and_an_unknown_name_is_refused() -> None:
    assert make_tracker("none") is None
    with pytest.raises(SettingError, match="report-to 'x': allowed are none, mlflow, trackio, wan"):
        make_tracker("x")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(tracking, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'routedk\[mlflow\]'"):
        make_tracker("mlflow")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tracker", sorted(TRACKERS))
def test_what_a_tracker_keeps_has_no_keys(
    tracker: str, trial: FrozenTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that the library itself writes, every file is read."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setattr("sys.argv", ["routedk", "--storage", "postgresql://me:hidden@host/x"])
    pytest.importorskip(tracker)
    track = make_tracker(tracker)
    assert track is not None
    track(optuna.create_study(study_name="mine"), trial)
    files = [Path(folder, name) for folder, _, names in os.walk(tmp_path) for name in names]
    kept = b"\n".join(path.read_bytes() for path in files)
    assert b"rule+thought" in kept
    assert b"0.5" in kept
    assert b"sk-very-secret" not in kept
    assert b"hidden" not in kept
