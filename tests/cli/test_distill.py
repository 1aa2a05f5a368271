import json
from pathlib import Path
from typing import Any

import pytest

from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.data.knowledge_file import read_knowledge, sources_of

from .conftest import Run, records, write_records

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
    assert "there are no calls" in run(*DISTILL, *options)[1]
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-tokens", "9"), "--max-tokens is for LM teachers"),
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


def test_answers_made_elsewhere(run: Run, tmp_path: Path) -> None:
    requests, results, output = (tmp_path / name for name in ("q.jsonl", "r.jsonl", "out"))
    code, out, _ = run(*DISTILL, "--teacher", "openai/gpt-4o-mini", "--write-requests", requests)
    assert (code, out) == (0, f"{len(TRAIN)} requests: {requests}\n")
    content = '{"bundles": [{"items": [1, 2, 99], "intent": "tea"}]}'
    response = {"body": {"choices": [{"message": {"content": content}}]}}
    asked = [json.loads(line)["custom_id"] for line in requests.read_text().splitlines()]
    lines = [json.dumps({"custom_id": name, "response": response}) for name in asked]
    other = next(s.id for s in load_sessions("demo") if s.id not in TRAIN)
    extra = ["{", "[]", "1", json.dumps({"session_id": other, "bundles": []}), '"x"']
    results.write_text("\n".join([*lines, *extra]))
    code, out, err = run(*DISTILL, "--answers", results, "--output", output)
    assert code == 0
    assert "Left out: 1 of other sessions of the data set" in out
    assert f"4 bad lines were not used, all of them in {output / 'report.json'}:" in err
    assert f"  {results}:{len(TRAIN) + 1}: invalid JSON" in err
    assert f"{len(TRAIN)} parts of answers were not used" in err
    told = report(output)
    assert (len(told["bad_lines"]), len(told["dropped"])) == (4, len(TRAIN))
    knowledge = read_knowledge(output / "knowledge.jsonl")
    assert [answer.session_id for answer in knowledge.answers] == asked


def test_sessions_alone_need_a_teacher(run: Run, tmp_path: Path) -> None:
    data = write_records(tmp_path / "carts.jsonl", records(20))
    code, _, err = run("distill", "--data", data, "--output", tmp_path / "out")
    assert code == 2
    assert "name a language model with --teacher, or recorded answers with --answers" in err
