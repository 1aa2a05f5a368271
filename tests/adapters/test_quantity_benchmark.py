"""`benchmarks.quantity`, with the tiny student's tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

from routedk.data import DataOptions, demo_sessions, split_sessions, write_jsonl
from routedk.programs.sampling.difficulty import write_scores
from routedk.programs.teachers.annotation import annotation_knowledge
from routedk.programs.teachers.config import DistillConfig
from routedk.types import Session

Run = Callable[..., Result]
KINDS = ("patterns", "rules", "thoughts")
SEED = 4


@pytest.fixture
def sessions(tmp_path: Path) -> list[Session]:
    chosen = demo_sessions()[:40]
    write_jsonl(tmp_path / "sessions.jsonl", chosen)
    return split_sessions(chosen, DataOptions(seed=SEED))["train"]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, sessions: list[Session], student_folder: Path, tmp_path: Path
) -> Run:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import quantity

    app = typer.Typer()
    app.command()(quantity.main)

    def invoke(*options: str) -> Result:
        given = ["--data", str(tmp_path / "sessions.jsonl"), "--student", str(student_folder)]
        more = ["--output", str(tmp_path / "out"), "--seed", str(SEED), *options]
        return CliRunner().invoke(app, [*given, *more])

    return invoke


def points(tmp_path: Path) -> dict[tuple[str, float], Any]:
    record = json.loads((tmp_path / "out" / "quantity.json").read_text())
    assert record["config"]["max_rules"] == record["config"]["max_patterns"] == 100_000
    return {(point["strategy"], point["ratio"]): point for point in record["points"]}


def test_every_strategy_and_ratio(
    run: Run, sessions: list[Session], student_folder: Path, tmp_path: Path
) -> None:
    scores = {session.id: len(session.items) / 10 for session in sessions}
    write_scores(tmp_path / "scores.jsonl", scores)
    shown = run("--scores", str(tmp_path / "scores.jsonl"))
    assert shown.exit_code == 0, shown.output
    found = points(tmp_path)
    tenths = [tenth / 10 for tenth in range(1, 11)]
    names = ("random", "length", "diversity", "difficulty")
    assert list(found) == [(name, ratio) for name in names for ratio in tenths]
    for name in names:
        assert [found[name, ratio]["sessions"] for ratio in tenths] == [
            (tenth * len(sessions) + 5) // 10 for tenth in range(1, 11)
        ]
        for ratio in tenths:
            point = found[name, ratio]
            assert point["thoughts"]["count"] == point["sessions"]
    tokenizer = AutoTokenizer.from_pretrained(student_folder)
    limits = DistillConfig(max_rules=10**6, max_patterns=10**6, min_support=1e-6)
    whole = annotation_knowledge(sessions, limits)
    texts = {
        "patterns": [" + ".join(pattern.categories) for pattern in whole.patterns],
        "rules": [rule.text for rule in whole.rules],
        "thoughts": [thought.text for thought in whole.thoughts],
    }
    for name in names:
        for kind in KINDS:
            assert found[name, 1.0][kind] == {
                "count": len(texts[kind]),
                "tokens": sum(len(tokenizer.tokenize(text)) for text in texts[kind]),
            }
    assert (tmp_path / "out" / "quantity.png").read_bytes().startswith(b"\x89PNG")
