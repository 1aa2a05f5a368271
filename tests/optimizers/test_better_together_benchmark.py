"""`benchmarks.better_together`, on the tiny student."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from routedk.programs.generator import load_program

Run = Callable[..., Result]


@pytest.fixture
def run(student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import better_together

    app = typer.Typer()
    app.command()(better_together.main)

    def invoke(*options: str) -> Result:
        sizes = ["--train", "4", "--validation", "2", "--test", "2", "--evaluations", "1"]
        given = ["--output", str(tmp_path), "--student", str(student_folder), "--epochs", "1"]
        return CliRunner().invoke(app, [*sizes, *given, *options])

    return invoke


def test_every_step_is_scored_on_both_parts(run: Run, tmp_path: Path) -> None:
    shown = run("--threshold", "0")
    assert shown.exit_code == 0, shown.output
    record = json.loads((tmp_path / "results.json").read_text())
    assert [one["step"] for one in record["steps"]] == ["", "p", "p -> w", "p -> w -> p"]
    for one in record["steps"]:
        for part in ("val", "test"):
            assert 0 <= one[part]["low"] <= one[part]["value"] <= one[part]["high"] <= 1
    assert record["steps"][0]["test"]["difference"] == 0
    assert record["learnt"]["gold"] == record["learnt"]["asked"] == 4
    assert record["learnt"]["accepted"] > 0
    assert record["chosen_on_validation"] in {one["step"] for one in record["steps"]}
    load_program(tmp_path / "program.json")


def test_a_step_that_fails_ends_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    failed = run()
    assert "a step of 'p -> w -> p' failed" in str(failed.exception)
    assert not (tmp_path / "results.json").exists()
