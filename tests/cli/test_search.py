from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.cli.conftest import Run


def test_a_study_and_its_resumption(
    run: Run, pipelines: list[dict[str, Any]], space: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/mine.db"
    command = ["search", "--data", "demo", "--study", "mine", "--storage", url, "--space", space]
    command += ["--store", tmp_path / "store", "--max-validation", "6", "--trials"]
    code, out, err = run(*command, "2")
    assert code == 0, err
    assert f"Study: mine in {url}" in out
    assert "Best matched F1 on 6 validation sessions: trial" in out
    (pipeline,) = pipelines
    assert pipeline["store"] == tmp_path / "store"
    assert len(pipeline["validation"]) == 6
    assert not {s.id for s in pipeline["train"]} & {s.id for s in pipeline["validation"]}
    code, _, err = run(*command, "3")
    assert code == 2
    assert "error: study 'mine' is in" in err
    assert "add --resume" in err
    code, _, err = run(*command, "3", "--resume", "--seed", "1")
    assert code == 2
    assert "was made with --seed 0, not 1: give --data and its options" in err
    fewer = ["4" if word == "6" else word for word in command]
    code, _, err = run(*fewer, "3", "--resume")
    assert code == 2
    assert "was made with other sessions: 6 validation sessions, not 4: give --data and" in err
    assert "the first routedk search of this study, --max-validation among them" in err
    code, _, err = run(*command, "3", "--resume")
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
            ["--data", "demo", "--study", "x", "--trials", "1", "--storage", "sqlite://"],
            "a database in memory is gone with the command",
        ),
        (
            ["--data", "demo", "--study", "x", "--trials", "1", "--storage", "sqlite:///no/x.db"],
            "error: no: storage sqlite:///no/x.db: no such folder (make it, or name another)",
        ),
        (
            ["--data", "demo", "--study", "x", "--trials", "1", "--storage", "journal:/"],
            "error: /: storage journal:/: a folder (name a file in it)",
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
def test_a_wrong_command_says_what_is_wrong(run: Run, options: list[str], message: str) -> None:
    code, _, err = run("search", *options)
    assert code == 2
    assert message in err


def test_help_is_readable(run: Run) -> None:
    code, out, _ = run("search", "--help")
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
