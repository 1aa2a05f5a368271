from pathlib import Path
from typing import Any

import pytest

import routedk
from routedk import PaperConfig

from .conftest import Run, write_records


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the verb is called with, instead of what it does."""
    found: list[Any] = []

    def call(*arguments: Any, **options: Any) -> Any:
        found.append((arguments, options))
        f1 = {"value": 0.5, "low": 0.4, "high": 0.6}
        return {
            "systems": [{"name": "routed", "matched_f1": f1}],
            "failures": {"uniform": "out of memory"},
        }

    monkeypatch.setattr(routedk, "study_paper", call, raising=False)
    return found


def test_study(run: Run, calls: list[Any], tmp_path: Path) -> None:
    reference, output = tmp_path / "teacher.jsonl", tmp_path / "out"
    write_records(reference, [{"session_id": "demo-000", "bundles": []}])
    options = ("--budget", "full", "--seed", "2", "--reference", reference)
    code, out, _ = run("study", "kd", "--data", "demo", *options, "--output", output)
    assert code == 0
    ((paper, parts, folder, config), found) = calls[0]
    assert (paper, folder) == ("kd", output)
    assert config == PaperConfig(budget="full", seed=2)
    assert {name: len(some) for name, some in parts.items()} == {
        "train": 210,
        "val": 30,
        "test": 60,
        "all": 300,
    }
    assert [one.session_id for one in found["reference"]] == ["demo-000"]
    assert "0.500 (0.400 to 0.600)  routed" in out
    assert "failed  uniform: out of memory" in out
    assert str(output / "report.html") in out


def test_what_is_wrong_is_one_line(run: Run, calls: list[Any], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"mine": 1}')
    for arguments, message in (
        (("study", "rag", "--data", "demo", "--output", tmp_path / "a"), "rag"),
        (("study", "kd", "--data", "demo", "--output", tmp_path), "did not write it"),
        (
            ("study", "kd", "--data", "demo", "--output", tmp_path / "a", "--study", "a b"),
            "study 'a b'",
        ),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    assert calls == []
