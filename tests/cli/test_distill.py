import json
from pathlib import Path
from typing import Any

import pytest

from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.data.knowledge_file import read_knowledge, sources_of

from .conftest import Run

TRAIN = [s.id for s in split_sessions(load_sessions("demo"), DataOptions())["train"]]
DISTILL = ("distill", "--data", "demo")


def report(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


def test_distill_the_demo(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "knowledge"
    code, out, _ = run(*DISTILL, "--output", output, "--max-rules", "5")
    assert code == 0
    assert f"Knowledge: {output / 'knowledge.jsonl'}" in out
    knowledge = read_knowledge(output / "knowledge.jsonl")
    assert len(knowledge.rules) == report(output)["counts"]["rules"] == 5
    assert sources_of(knowledge) <= set(TRAIN)


def test_a_dry_run_asks_nothing(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("--dry-run", "--output", output)
    paid = (*DISTILL, "--teacher", "openai/gpt-4o-mini", "--ratio", "0.1")
    assert "--output DIR: name the folder" in run(*paid)[2]
    code, out, _ = run(*paid, "--dry-run")
    assert code == 0
    rows = [line.split("│") for line in out.splitlines() if "│" in line]
    assert rows
    assert all(float(row[-2]) > 0 for row in rows)
    code, out, _ = run(*DISTILL, "--teacher", "hosted_vllm/ours", *options)
    assert "unknown" in out
    assert "makes no calls" in run(*DISTILL, *options)[1]
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-tokens", "9"), "max_tokens is for LM teachers"),
        (("--ratio", "1.5"), "ratio=1.5: it must be in (0, 1]"),
        (("--scores", "s.jsonl"), "scores are for the strategy difficulty"),
        (("--teacher", "nonsense"), "'nonsense'"),
    ],
)
def test_settings_are_refused_in_one_line(
    run: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, _, err = run(*DISTILL, *options, "--output", tmp_path / "out")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_folder_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = run(*DISTILL, "--output", tmp_path)
    assert code == 2
    assert "exists already: name another folder, or remove it" in err
    assert (tmp_path / "mine.txt").read_text() == "mine"
