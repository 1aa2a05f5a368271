"""Every command on the tiny student, from sessions to a table: all parts real, only small."""

import json
from pathlib import Path
from typing import Any

import pytest

from routedk import CompileConfig, DataOptions, TrainConfig, load_sessions, split_sessions
from routedk.cli import demo as demo_module
from routedk.data import write_jsonl

from ..adapters.conftest import student_folder  # noqa: TID252
from ..embedded import embed  # noqa: TID252
from .conftest import Run

__all__ = ["student_folder"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixteen sessions for training, eight for validation, six for the test."""
    parts = split_sessions(load_sessions("demo"), DataOptions())
    taken = {name: parts[name][:count] for name, count in (("train", 16), ("val", 8), ("test", 6))}
    ids = {name: [session.id for session in part] for name, part in taken.items()}
    (tmp_path / "split.json").write_text(json.dumps(ids))
    write_jsonl(tmp_path / "sessions.jsonl", [s for part in taken.values() for s in part])
    return tmp_path / "sessions.jsonl"


def test_from_sessions_to_results(
    run: Run, monkeypatch: pytest.MonkeyPatch, data: Path, student_folder: Path
) -> None:
    monkeypatch.chdir(data.parent)
    shared = ("--data", data, "--split-file", "split.json")

    def done(command: str, *options: str | Path) -> str:
        sessions = () if command == "export" else shared
        code, out, err = run(command, *sessions, *options)
        assert code == 0, err
        return out

    student, knowledge = ("--student", student_folder), ("--knowledge", "knowledge/knowledge.jsonl")
    sizes = ("--epochs", "0.5", "--router-share", "0.5", "--layers", "2")
    done("distill", "--output", "knowledge")
    done("train", *knowledge, *student, *sizes, "--output", "experts")
    used = ("--experts", "experts", *student)
    limits = ("--evaluations", "2", "--max-validation", "3")
    done("compile", *knowledge, *used, *limits, "--output", "program.json")
    answer = ("--split", "test", "--program", "program.json", "--output", "bundles.jsonl")
    done("generate", *used, *answer)
    scored = ("--predictions", "bundles.jsonl", "--baselines", "--output", "result.json")
    assert "embedding-clusters" in done("evaluate", *scored)
    counts = json.loads(Path("result.json").read_text())["counts"]
    assert 0 < counts["sessions"] <= 6
    done("export", "--experts", "experts", "--output", "lora", "--results", "result.json")
    assert Path("lora/adapter_config.json").exists()
    stages = {row["stage"] for row in json.loads(run("cache", "list", "--json")[1])}
    assert stages >= {"knowledge", "answers"}


def test_the_demo_and_a_second_run_that_reuses_it(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    data: Path,
    tmp_path: Path,
    student_folder: Path,
) -> None:
    small = (
        TrainConfig(epochs=0.5, knowledge_share=0.5, router_share=0.5, layers=2),
        CompileConfig(evaluations=2, max_validation=3),
    )
    sessions = load_sessions(data)
    options = DataOptions(split_file=tmp_path / "split.json")
    embed(student_folder, monkeypatch)
    monkeypatch.setattr(demo_module, "demo_configs", lambda: small)
    monkeypatch.setattr("routedk.load_sessions", lambda name: sessions, raising=False)
    monkeypatch.setattr(demo_module, "DataOptions", lambda: options)
    output = tmp_path / "demo"
    code, out, err = run("demo", "--output", output)
    assert code == 0, err
    verbs = ("distill", "train", "compile", "generate", "evaluate")
    for number, verb in enumerate(verbs, start=1):
        assert f"{number}/5 {verb} ..." in out
    for system in ("routed student", "base model", "embedding-clusters"):
        assert system in out
    assert "gold: " in out
    result = json.loads((output / "result.json").read_text())
    assert result["counts"]["sessions"] == len([s for s in sessions[-6:] if s.gold])
    assert (output / "experts" / "loss.png").read_bytes().startswith(b"\x89PNG")

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr("routedk.artifacts.ArtifactStore._make", fail)
    code, again, err = run("demo", "--output", output)
    assert code == 0, err
    assert again.split("\nknowledge ")[0] == out.split("\nknowledge ")[0]
