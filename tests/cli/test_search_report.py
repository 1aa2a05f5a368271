import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from routedk.cli import main
from routedk.data import DataOptions, load_sessions
from routedk.eval.embeddings import TfidfEncoder
from routedk.optimizers.search.testing import FastPipeline

SPACE = 'utilization = "ICL"\nformats = ["none", "rule"]\nneighbours = 0\nrules = [4]\n'


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), " ".join(out.split()), " ".join(err.split())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What pipelines that answer at once were made with; titles are compared by words."""
    made: list[dict[str, Any]] = []

    class Fast(FastPipeline):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            made.append(options)

        def __enter__(self) -> "Fast":
            return self

        def __exit__(self, *raised: object) -> None:
            pass

    # The real one's module loads torch; tests/optimizers/search/test_pipeline.py runs it.
    name = "routedk.optimizers.search.pipeline"
    module = ModuleType(name)
    module.Pipeline = Fast  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    titles = [i.title for s in load_sessions("demo", DataOptions(seed=1)) for i in s.items]
    monkeypatch.setattr("routedk.eval.default_encoder", lambda: TfidfEncoder(titles))
    return made


def test_the_report_of_a_search(
    capsys: pytest.CaptureFixture[str], made: list[dict[str, Any]], tmp_path: Path
) -> None:
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    study = ["--study", "mine", "--storage", f"sqlite:///{tmp_path}/mine.db"]
    data = ["--data", "demo", "--seed", "1", "--store", tmp_path / "store"]
    code, _, err = run(
        capsys,
        *("search", *data, *study, "--space", space, "--max-validation", "6", "--trials", "3"),
    )
    assert code == 0, err
    out = tmp_path / "report"
    report = ["search", "report", *study, "--output", out]
    code, said, err = run(capsys, *report)
    assert code == 0, err
    assert "Chosen: trial" in said
    assert "on test" not in said
    assert json.loads((out / "report.json").read_text())["test"] is None

    code, said, err = run(capsys, *report, *data, "--best", "2", "--no-default")
    assert code == 0, err
    assert f"Report: {out / 'report.html'}" in said
    assert "embedding-clusters: on test" in said
    record = json.loads((out / "report.json").read_text())
    assert [one["name"] for one in record["others_on_test"]] == [
        "embedding-clusters",
        "pair-clusters",
    ]
    assert record["test"]["split"] == "test"
    assert len(record["best"]) == 2
    first, second = made
    assert first["validation"] == second["validation"]
    assert second["student"] is None
    test = record["best"][0]["test"]
    assert test["counts"]["sessions"] > 6
    assert test["results"]["matched"]["f1"]["low"] <= test["results"]["matched"]["f1"]["value"]

    code, _, err = run(capsys, *report, "--data", "demo")
    assert code == 2
    assert "study 'mine' was made with --seed 1, not 0" in err
    code, _, err = run(capsys, *report, *data, "--split", "val")
    assert code == 2
    assert "a study is tested on test" in err

    export = ["search", "export", *study, "--store", tmp_path / "store"]
    code, _, err = run(capsys, *export, "3", "--output", tmp_path / "best")
    assert code == 2
    assert "trial 3 of study 'mine': there is none; complete are 0-2" in err


@pytest.mark.parametrize("command", [["report"], ["export", "0"]])
def test_a_study_that_is_not_there(
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "search", *command, "--study", "mine", "--output", "out")
    assert code == 2
    assert "study 'mine': there is no mine.db: name its storage with --storage" in err
    assert list(tmp_path.iterdir()) == []
    code, said, _ = run(capsys, "search", command[0], "--help")
    assert code == 0
    assert "--storage" in said
