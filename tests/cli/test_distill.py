import hashlib
import json
from pathlib import Path

import pytest

from routedk.cli import main
from routedk.data import load_sessions, split_sessions
from routedk.data.options import DataOptions
from routedk.programs.knowledge_file import read_knowledge, sources_of


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_distil_the_demo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(
        capsys, "distill", "--data", "demo", "--output", tmp_path, "--max-rules", "5"
    )
    assert code == 0
    assert "For " in out
    knowledge = read_knowledge(tmp_path / "knowledge.jsonl")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert len(knowledge.rules) == manifest["counts"]["rules"] == 5
    assert manifest["config"]["split"] == "train"
    digest = hashlib.sha256((tmp_path / "knowledge.jsonl").read_bytes()).hexdigest()
    assert manifest["sha256"] == digest
    parts = split_sessions(load_sessions("demo", DataOptions()), DataOptions())
    assert sources_of(knowledge) <= {session.id for session in parts["train"]}


def test_nothing_to_distil_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tmp_path / "sessions.jsonl"
    lines = [{"session_id": str(n), "items": [{"id": "a", "title": "x"}]} for n in range(20)]
    data.write_text("\n".join(map(json.dumps, lines)))
    code, _, err = run(capsys, "distill", "--data", data, "--output", tmp_path / "out")
    assert code == 2
    assert "the split 'train' has no session with gold bundles" in err
    assert not (tmp_path / "out").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "distill", "--help")
    assert code == 0
    assert "Example: routedk distill --data demo --output knowledge" in out
