"""A study shared by several processes, some of which are killed: `benchmarks.search_workers`."""

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    from benchmarks import search_workers

    return search_workers


def test_four_workers_two_of_them_killed(benchmark: Any, postgres_url: str) -> None:
    found = benchmark.kill_workers(
        postgres_url, workers=4, kills=2, trials=16, seed=0, study="mine"
    )
    assert benchmark.is_clean(found), json.dumps(found, indent=2)
