import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest

from routedk.cli import main
from routedk.optimizers.search.testing import FastPipeline

SPACE = 'utilization = "ICL"\nformats = ["none", "rule"]\nneighbours = 0\nrules = [4]\n'


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), " ".join(out.split()), " ".join(err.split())


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A pipeline that answers at once; gives what it was made with."""
    made: dict[str, Any] = {}

    class Fast(FastPipeline):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            made.update(options)

        def __enter__(self) -> "Fast":
            return self

        def __exit__(self, *raised: object) -> None:
            pass

    # The real one's module loads torch; tests/optimizers/search/test_pipeline.py runs it.
    name = "routedk.optimizers.search.pipeline"
    module = ModuleType(name)
    module.Pipeline = Fast  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    return made


def test_a_study_and_its_resumption(
    capsys: pytest.CaptureFixture[str], pipeline: dict[str, Any], tmp_path: Path
) -> None:
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    url = f"sqlite:///{tmp_path}/mine.db"
    command = ["search", "--data", "demo", "--study", "mine", "--storage", url, "--space", space]
    command += ["--store", tmp_path / "store", "--max-validation", "6", "--trials"]
    code, out, err = run(capsys, *command, "2")
    assert code == 0, err
    assert f"Study: mine in {url}" in out
    assert "Best matched F1 on 6 validation sessions: trial" in out
    assert pipeline["store"] == tmp_path / "store"
    assert len(pipeline["validation"]) == 6
    assert not {s.id for s in pipeline["train"]} & {s.id for s in pipeline["validation"]}
    code, _, err = run(capsys, *command, "3")
    assert code == 2
    assert "error: study 'mine' is in" in err
    assert "add --resume" in err
    code, _, err = run(capsys, *command, "3", "--resume", "--seed", "1")
    assert code == 2
    assert "was made with another data digest" in err
    code, _, err = run(capsys, *command, "3", "--resume")
    assert code == 0, err
    study = optuna.load_study(study_name="mine", storage=url)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--study", "x", "--trials", "1"], "which data? give --data PATH"),
        (["--data", "demo", "--trials", "1"], "which study? give --study NAME"),
        (["--data", "demo", "--study", "x"], "how long? give --trials N, --minutes M or"),
        (
            ["--data", "demo", "--study", "x", "--trials", "1", "--split", "val"],
            "a search trains on train and scores on val",
        ),
        (
            ["--data", "demo", "--study", "x", "--trials", "1", "--pruner", "median"],
            "Optuna prunes only where there is one objective",
        ),
        (
            ["--data", "demo", "--study", "x", "--trials", "1", "--report-to", "paper"],
            "report-to 'paper': allowed are none, mlflow, trackio, wandb",
        ),
        (
            ["--data", "demo", "--study", "x", "--trials", "1", "--space", "nowhere.toml"],
            "nowhere.toml: no such file",
        ),
    ],
)
def test_a_wrong_command_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    code, _, err = run(capsys, "search", *options)
    assert code == 2
    assert message in err


def test_help_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "search", "--help")
    assert code == 0
    for option in ("--data", "--study", "--storage", "--resume", "--space", "--report-to"):
        assert option in out
    assert "The test split is not looked at." in out


def test_a_command_under_search_needs_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from routedk.cli.search import search

    monkeypatch.setattr(search, "registered_commands", [])

    @search.command("probe")
    def probe(trial: int) -> None:
        raise SystemExit(trial)

    assert CliRunner().invoke(search, ["probe", "7"]).exit_code == 7
