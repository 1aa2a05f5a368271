"""`benchmarks.enhancement`, on the tiny student."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
import typer
from typer.testing import CliRunner, Result

from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.student import Student
from routedk.errors import SettingError

from .conftest import copy_of, randomise

Run = Callable[..., Result]
WAYS = ("greedy", "one sample", "consensus", "likelihood", "verification")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[None]:
    before = dspy.cache
    dspy.configure_cache(disk_cache_dir=str(tmp_path / "cache"))
    yield
    dspy.cache = before


@pytest.fixture
def run(loaded: Student, tmp_path: Path, cache: None, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import enhancement

    for name, form in (("experts", "bundles"), ("judges", "verification")):
        routed = RoutedStudent(copy_of(loaded), ExpertSettings(r=4, lora_alpha=8, layers=2))
        randomise(routed)
        routed.save(tmp_path / name, {"training": {"answer_form": form}})
    app = typer.Typer()
    app.command()(enhancement.main)

    def invoke(*options: str) -> Result:
        given = ["--data", "demo", "--experts", str(tmp_path / "experts"), "--single", "rule"]
        more = ["--limit", "2", "--n", "3", "--output", str(tmp_path / "results.json")]
        return CliRunner().invoke(app, [*given, *more, *options])

    return invoke


def test_every_row_is_scored_timed_and_compared(run: Run, tmp_path: Path) -> None:
    judges = str(tmp_path / "judges")
    wanted = ["pair-clusters", *(f"routed, {way}" for way in WAYS)]
    chosen = [part for name in wanted for part in ("--only", name)]
    shown = run("--verifier", judges, *chosen)
    assert shown.exit_code == 0, shown.output
    rows: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())["conditions"]
    assert list(rows) == ["embedding-clusters", *wanted]
    assert all("f1" in rows[name]["difference"] for name in wanted)
    for name in wanted[1:]:
        cost = rows[name]["cost"]
        assert cost["seconds_per_session"] > 0
        assert cost["cached_calls"] == 0
    costs = [rows[f"routed, {way}"]["cost"] for way in WAYS]
    greedy, _, consensus, likelihood, verification = costs
    assert greedy["calls_per_session"] == 1
    assert consensus["output_tokens_per_session"] > greedy["output_tokens_per_session"]
    # The greedy answer is among their candidates, and judging reads more.
    for cost in (likelihood, verification):
        assert cost["calls_per_session"] == 2
        assert cost["input_tokens_per_session"] > greedy["input_tokens_per_session"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "magic"], "no row is called 'magic'"),
        (["--verifier", "experts"], "not trained with --answer-form verification"),
        (["--single", "magic"], "has no such expert"),
    ],
)
def test_what_is_not_allowed_is_said_first(
    run: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    found = run(*(str(tmp_path / part) if part == "experts" else part for part in options))
    assert isinstance(found.exception, SettingError)
    assert message in str(found.exception)
    assert not (tmp_path / "results.json").exists()
