import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from routedk.errors import MissingExtraError, SettingError
from routedk.optimizers.search import tracking
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.tracking import TRACKERS, make_tracker, run_config, run_metrics

SETTINGS = TrialSettings(formats=("rule", "thought"), rules=4, neighbours=1)

TRACKED = """
import sys

import optuna

from routedk.optimizers.search.tracking import make_tracker
from tests.optimizers.search.test_tracking import complete

make_tracker(sys.argv[1])(optuna.create_study(study_name="mine"), complete())
"""


def complete() -> FrozenTrial:
    attrs = {"settings": SETTINGS.to_dict(), "f1": 0.5, "tokens": 80.0, "seconds": 2.0}
    return create_trial(
        state=TrialState.COMPLETE, values=[0.5], user_attrs={**attrs, "worker": {"pid": 1}}
    )


def test_a_run_holds_settings_and_scores_and_nothing_else() -> None:
    trial = complete()
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


@pytest.mark.parametrize("tracker", sorted(TRACKERS))
def test_what_a_tracker_keeps_has_no_keys(tracker: str, tmp_path: Path) -> None:
    """Of all that the library itself writes, in a process of its own, every file is read."""
    if find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    places = {
        "MLFLOW_TRACKING_URI": (tmp_path / "runs").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": str(tmp_path / "runs"),
        "WANDB_DIR": str(tmp_path),
        "WANDB_MODE": "offline",
    }
    subprocess.run(
        [sys.executable, "-c", TRACKED, tracker, "--storage", "postgresql://me:hidden@host/x"],
        env={**os.environ, **places, "OPENAI_API_KEY": "sk-very-secret"},
        cwd=Path(__file__).parents[3],
        check=True,
        timeout=300,
    )
    files = [Path(folder, name) for folder, _, names in os.walk(tmp_path) for name in names]
    kept = b"\n".join(path.read_bytes() for path in files)
    assert b"rule+thought" in kept
    assert b"0.5" in kept
    assert b"sk-very-secret" not in kept
    assert b"hidden" not in kept
