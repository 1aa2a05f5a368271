"""The demo's commands and an export on the tiny student: all parts real, only small."""

import json
from pathlib import Path
from typing import Any

import pytest

from routedk import DataOptions, load_sessions, split_sessions
from routedk.cli import demo as demo_module
from routedk.data import write_jsonl

from ..adapters.conftest import student_folder  # noqa: TID252
from ..embedded import embed  # noqa: TID252
from .conftest import Run

__all__ = ["student_folder"]

SMALLER = {
    "--data demo": "--data sessions.jsonl --split-file split.json",
    "--epochs 2 --knowledge-share 0.1": "--epochs 0.3 --layers 1 --knowledge-share 0.3",
    # A plain LoRA, which is exported below, is active from the start.
    "--router-share 0.05": "--router-share 0.3 --grouping-epochs 1 --experts-from start",
    "--evaluations 2 --max-validation 12": "--evaluations 2 --max-validation 2",
}


def smaller(command: str) -> str:
    for text, replacement in SMALLER.items():
        command = command.replace(text, replacement)
    return command


@pytest.fixture
def _small_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, student_folder: Path) -> None:
    """Replace the demo's data by ten training, six validation and four test sessions."""
    monkeypatch.chdir(tmp_path)
    parts = split_sessions(load_sessions("demo"), DataOptions())
    taken = {name: parts[name][:count] for name, count in (("train", 10), ("val", 6), ("test", 4))}
    ids = {name: [session.id for session in part] for name, part in taken.items()}
    Path("split.json").write_text(json.dumps(ids))
    write_jsonl("sessions.jsonl", [s for part in taken.values() for s in part])
    embed(student_folder, monkeypatch)
    assert all(any(text in c for c in demo_module.COMMANDS) for text in SMALLER)
    monkeypatch.setattr(demo_module, "COMMANDS", tuple(map(smaller, demo_module.COMMANDS)))
    # The packaged bundler fits the real student only.
    first = smaller(demo_module.FIRST) + " --student default"
    monkeypatch.setattr(demo_module, "FIRST", first)


@pytest.mark.usefixtures("_small_data")
def test_from_sessions_to_results_and_again_from_the_store(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("demo", "--output", "my demo")
    assert code == 0, err
    for verb in ("distill", "train", "compile", "generate", "evaluate"):
        assert f"\n$ routedk {verb} --data " in out
    assert "--output 'my demo/experts'" in out
    assert "embedding-clusters" in out
    assert "  gold: " in out
    output = Path("my demo")
    counts = [
        json.loads((output / f"{name}.json").read_text())["counts"]
        for name in ("general", "result")
    ]
    assert counts[0]["sessions"] == counts[1]["sessions"] > 0
    assert (output / "experts" / "loss.png").read_bytes().startswith(b"\x89PNG")

    code, _, err = run("export", "--experts", output / "experts", "--output", "lora")
    assert code == 0, err
    assert Path("lora/adapter_config.json").exists()
    stages = {row["stage"] for row in json.loads(run("cache", "list", "--json")[1])}
    assert stages >= {"knowledge", "program", "answers"}

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr("routedk.artifacts.ArtifactStore._make", fail)
    code, again, err = run("demo", "--output", output)
    assert code == 0, err
    assert again.split("\nAll of it ")[0] == out.split("\nAll of it ")[0]
