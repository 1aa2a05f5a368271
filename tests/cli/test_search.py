import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import routedk
from routedk import SearchConfig
from routedk.optimizers.search import config as config_module

from .conftest import Run

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the verbs are called with, instead of what they do."""
    found: Calls = []
    trials = [
        SimpleNamespace(number=3, values=[0.4], user_attrs={"tokens": 90.0}),
        SimpleNamespace(number=5, values=[0.7], user_attrs={"tokens": 91.0}),
        SimpleNamespace(
            number=7, values=[0.7], user_attrs={"tokens": 90.0, "settings": {"utilization": "ICL"}}
        ),
    ]

    def called(result: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            found.append((arguments, options))
            return result

        return call

    study = SimpleNamespace(best_trials=trials)
    package = routedk.optimizers.search  # type: ignore[attr-defined]
    monkeypatch.setattr(routedk, "search", called(study), raising=False)
    report = {"best": [{"trial": 7, "f1": 0.7}]}
    monkeypatch.setattr(package, "report_search", called(report), raising=False)
    monkeypatch.setattr(package, "export_trial", called(None), raising=False)
    return found


def test_search(run: Run, calls: Calls, tmp_path: Path) -> None:
    options = ("--study", "mine", "--trials", "9", "--objective", "f1", "--seed", "5")
    code, out, _ = run("search", "--data", "demo", *options, "--store", tmp_path)
    assert code == 0
    (((train, validation, config), found),) = calls
    assert (len(train), len(validation), found) == (210, 30, {"store": str(tmp_path)})
    assert config == SearchConfig(study="mine", trials=9, objective="f1", seed=5)
    assert "Best on validation: trial 7, matched F1 0.700" in out
    assert "utilization ICL" in out
    # The commands that follow find the same sessions and study.
    (use,) = (line.partition(": ")[2] for line in out.splitlines() if "search export" in line)
    for option in ("--data demo", "--study mine", "--seed 5", f"--store {tmp_path}"):
        assert option in use
    assert run(*shlex.split(use)[1:])[0] == 0
    (arguments, found) = calls[1]
    assert (arguments[0], arguments[1]) == (train, validation)
    assert arguments[2:] == (7, Path("best"), config_module.StudyConfig(study="mine"))
    assert found == {"store": str(tmp_path)}


def test_report(run: Run, calls: Calls, tmp_path: Path) -> None:
    output = tmp_path / "report"
    code, out, _ = run("search", "report", "--study", "mine", "--output", output, "--default")
    assert code == 0
    ((arguments, options),) = calls
    assert arguments == (output, config_module.ReportConfig(study="mine", default=True))
    assert options == {"parts": None, "store": None}
    assert "Chosen: trial 7, matched F1 on validation 0.700" in out
    assert f"Report: {output / 'report.html'}" in out
    output.mkdir()
    for name in ("report.html", "report.json"):
        (output / name).write_text("{}")
        code, _, err = run("search", "report", "--output", output)
        assert (code, f"{name}: exists already, and this command did not" in err) == (2, True)
    (output / "report.json").write_text('{"study": "mine", "made_with": {}}')
    assert run("search", "report", "--data", "demo", "--output", output)[0] == 0
    assert len(calls[1][1]["parts"]["test"]) == 60


def test_export(run: Run, calls: Calls, tmp_path: Path) -> None:
    output = tmp_path / "best"
    arguments = ("--data", "demo", "--study", "mine", "--output", output)
    code, out, _ = run("search", "export", "7", *arguments)
    assert code == 0
    assert calls[0][0][2:] == (7, output, config_module.StudyConfig(study="mine"))
    assert f"Trial 7 of mine: {output / 'README.md'} says how to use it." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which sessions? give --data PATH"),
        (("--data", "demo", "--study", "/"), "study '/': a name has letters"),
        (("--data", "demo", "--trials", "0"), "trials=0: it must be at least 1"),
    ],
)
def test_what_is_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("search", *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_study_that_is_not_there(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("search", "report", "--study", "none", "--output", "report")
    assert code == 2
    assert "study 'none' is not in sqlite:///none.db" in err
    assert list(tmp_path.iterdir()) == []
