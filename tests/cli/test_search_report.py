import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.similarity.words import TfidfEncoder
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles are compared by words."""
    titles = [i.title for s in load_sessions("demo", DataOptions(seed=1)) for i in s.items]
    monkeypatch.setattr("routedk.similarity.encoders.named_encoder", lambda _: TfidfEncoder(titles))


def test_the_report_of_a_search(
    run: Run, pipelines: list[dict[str, Any]], space: Path, tmp_path: Path
) -> None:
    study = ["--study", "mine", "--storage", f"sqlite:///{tmp_path}/mine.db"]
    data = ["--data", "demo", "--seed", "1", "--store", tmp_path / "store"]
    code, _, err = run(
        *("search", *data, *study, "--space", space, "--max-validation", "6", "--trials", "3"),
    )
    assert code == 0, err
    out = tmp_path / "report"
    report = ["search", "report", *study, "--output", out]
    code, said, err = run(*report)
    assert code == 0, err
    assert "Chosen: trial" in said
    assert "on test" not in said
    assert json.loads((out / "report.json").read_text())["test"] is None

    code, said, err = run(*report, *data, "--best", "2", "--no-default")
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
    first, second = pipelines
    assert first["validation"] == second["validation"]
    assert second["student"] is None
    test = record["best"][0]["test"]
    assert test["counts"]["sessions"] > 6
    words = shlex.split(record["export"])
    assert words[:4] == ["routedk", "search", "export", str(record["best"][0]["trial"])]
    assert words[4:-2] == [*study, "--store", str(tmp_path / "store")]
    assert test["results"]["matched"]["f1"]["low"] <= test["results"]["matched"]["f1"]["value"]

    code, _, err = run(*report, "--data", "demo")
    assert code == 2
    assert "study 'mine' was made with --seed 1, not 0" in err
    # Another test split of the same training and validation sessions.
    ids = split_sessions(load_sessions("demo", DataOptions()), DataOptions(seed=1))
    names = {part: [session.id for session in found] for part, found in ids.items()}
    (tmp_path / "split.json").write_text(json.dumps({**names, "test": names["test"][1:]}))
    code, _, err = run(*report, *data, "--split-file", tmp_path / "split.json")
    assert code == 2
    assert f"set aside {len(names['test'])} test sessions, not {len(names['test']) - 1}" in err
    code, _, err = run(*report, *data, "--split", "val")
    assert code == 2
    assert "a study is tested on test" in err

    export = ["search", "export", *study, "--store", tmp_path / "store"]
    code, _, err = run(*export, "3", "--output", tmp_path / "best")
    assert code == 2
    assert "trial 3 of study 'mine': there is none; complete are 0-2" in err


@pytest.mark.parametrize("command", [["report"], ["export", "0"]])
def test_a_study_that_is_not_there(
    command: list[str],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("search", *command, "--study", "mine", "--output", "out")
    assert code == 2
    assert "study 'mine': there is no mine.db: name its storage with --storage" in err
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "other.json"
    other.write_text('{"rules": 4}')
    for kind, message in (("journal:", "not a journal of Optuna's"), ("sqlite:///", "not a data")):
        options = ("--storage", f"{kind}other.json", "--output", "out")
        code, _, err = run("search", *command, "--study", "mine", *options)
        assert (code, message in err, err.count("error:")) == (2, True, 1)
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"rules": 4}']
    code, said, _ = run("search", command[0], "--help")
    assert code == 0
    assert "--storage" in said
