"""A study that four processes share in a real PostgreSQL: `benchmarks.search_workers`."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from routedk.errors import SettingError
from routedk.optimizers.search.corners import corners
from routedk.optimizers.search.storage import open_existing, open_storage
from routedk.optimizers.search.workers import position, worker_of

BUDGET = 24


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    from benchmarks import search_workers

    return search_workers


def test_four_workers_two_of_them_killed(benchmark: Any, postgres_url: str) -> None:
    found = benchmark.kill_workers(
        postgres_url, workers=4, kills=2, trials=BUDGET, seed=0, study="mine"
    )
    trials = benchmark.read_trials(postgres_url, "mine")
    states = Counter(trial.state for trial in trials)
    assert set(states) == {TrialState.COMPLETE, TrialState.FAIL}
    assert states[TrialState.FAIL] == 2
    # The two that were left may both have seen room for the last one.
    assert states[TrialState.COMPLETE] in (BUDGET, BUDGET + 1)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(position(trial, trials) for trial in complete) == list(range(len(complete)))
    first = corners(benchmark.SPACE)
    assert [trial.params for trial in trials[: len(first)]] == first

    assert found["exit_codes"] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    killed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert {kill["trial"] for kill in found["killed"]} == {trial.number for trial in killed}
    for trial in killed:
        (again,) = [t for t in trials if t.system_attrs.get("failed_trial") == trial.number]
        assert again.state == TrialState.COMPLETE
        assert again.params == trial.params
        assert worker_of(again) != worker_of(trial)
        assert "scores" not in trial.user_attrs
        assert len(again.user_attrs["scores"]) == len(benchmark.SESSIONS)

    # What the processes say they carried out is what the database holds, once each.
    assert len({worker_of(trial) for trial in trials}) == 4
    assert found["carried_out"] == len(trials)
    assert found["carried_out_but_not_recorded"] == found["recorded_but_not_carried_out"] == 0
    assert found["completed_twice"] == found["never_ended"] == 0
    assert benchmark.is_clean(found)
    json.dumps(found)


def test_reading_makes_no_tables(postgres_url: str) -> None:
    assert open_existing(postgres_url) is None
    engine = sqlalchemy.create_engine(postgres_url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()
    for opened in (open_storage(postgres_url), open_existing(postgres_url)):
        assert isinstance(opened, RDBStorage)
        assert opened.get_all_studies() == []
        opened.remove_session()
        opened.engine.dispose()


def test_whole_waves_killed_and_resumed(benchmark: Any, tmp_path: Path) -> None:
    found = benchmark.kill_workers(
        f"sqlite:///{tmp_path}/s.db", workers=1, kills=3, trials=BUDGET, seed=1, study="mine"
    )
    assert benchmark.is_clean(found)
    assert found["states"] == {"COMPLETE": BUDGET, "FAIL": 3}
    assert found["exit_codes"] == [-signal.SIGKILL] * 3 + [0]


def test_the_benchmark_needs_trials_to_kill_in(benchmark: Any) -> None:
    with pytest.raises(SettingError, match="trials=11: 2 kills need at least 12"):
        benchmark.kill_workers("", workers=4, kills=2, trials=11, seed=0, study="mine")
