"""``routedk distill`` killed and started again: the short form of ``benchmarks.kill_resume``."""

from pathlib import Path
from typing import Any

import pytest

from routedk.files import read_json


@pytest.fixture
def kill_resume(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.setenv("ROUTEDK_CACHE", "")
    from benchmarks import kill_resume

    return kill_resume


def test_kills_lose_nothing_and_pay_nothing_twice(kill_resume: Any, tmp_path: Path) -> None:
    found = kill_resume.kill_and_resume(
        tmp_path,
        kills=5,
        seed=0,
        seconds=0.1,
        # Merging rules loads an encoder in every run; the benchmark does that, too.
        options=("--ratio=0.2", "--threads=4", "--formats=pattern", "--formats=thought"),
        start=kill_resume.Forks(kill_resume.LIBRARIES),
    )
    assert found["kills"] == 5
    assert found["same_knowledge"]
    told = read_json(tmp_path / "killed" / "report.json")
    assert isinstance(told, dict)
    assert told["counts"]["thoughts"] == told["counts"]["sessions"] > 20
    assert found["answers_in_the_journal"] == found["questions"] == told["spent"]["calls"]
    assert found["calls_made_again_though_journaled"] == 0
    # What was under way is asked again, and answered once by a server that knows the header.
    assert found["calls_made"] == found["questions"] + found["calls_made_again"]
    assert found["calls_made_again"] <= found["calls_under_way_when_killed"]
    assert found["answers_computed_twice"] == 0
