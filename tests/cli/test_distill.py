import hashlib
import json
import re
from pathlib import Path

import pytest

from routedk.cli import main
from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.data.knowledge_file import read_knowledge, sources_of


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


def sampled(folder: Path) -> list[str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["sessions"] == len(manifest["sessions"])
    return list(manifest["sessions"])


def test_smaller_samples_are_inside_larger_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ("--formats", "pattern,thought", "--strategy", "length")
    for ratio in ("0.1", "0.4"):
        folder = tmp_path / ratio
        code, _, _ = run(
            capsys, "distill", "--data", "demo", *options, "--ratio", ratio, "--output", folder
        )
        assert code == 0
    small, large = (set(sampled(tmp_path / ratio)) for ratio in ("0.1", "0.4"))
    assert small < large
    knowledge = read_knowledge(tmp_path / "0.1" / "knowledge.jsonl")
    assert knowledge.rules == ()
    assert {thought.session_id for thought in knowledge.thoughts} == small
    assert sources_of(knowledge) <= small


def test_difficulty_by_scores_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parts = split_sessions(load_sessions("demo", DataOptions()), DataOptions())
    hard = [session.id for session in parts["train"]][5:8]
    scores = tmp_path / "scores.jsonl"
    lines = [
        {"session_id": session.id, "score": 0.1 if session.id in hard else 0.9}
        for session in parts["train"]
    ]
    scores.write_text("\n".join(map(json.dumps, lines)))
    ratio = str(3 / len(parts["train"]))
    options = ("--strategy", "difficulty", "--scores", scores, "--ratio", ratio)
    run(capsys, "distill", "--data", "demo", *options, "--output", tmp_path / "out")
    assert sorted(sampled(tmp_path / "out")) == sorted(hard)


def test_a_dry_run_asks_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--teacher", "openai/gpt-4o-mini", "--dry-run", "--ratio", "0.1")
    code, out, _ = run(capsys, "distill", "--data", "demo", *options, "--output", tmp_path / "out")
    assert code == 0
    rows = {line.split("│")[1].strip(): line.split("│") for line in out.splitlines() if "│" in line}
    assert rows["bundle"][2].strip() == "all"
    assert rows["state rules"][2].strip() == "at most"
    assert int(rows["bundle"][3]) == int(rows["name intents"][3]) == 21
    assert all(float(row[6]) > 0 for row in rows.values())
    assert re.search(r"In all between 42 calls, \d+ tokens, 0\.\d+ dollars and 105 calls, ", out)
    assert not (tmp_path / "out").exists()
    options = ("--teacher", "hosted_vllm/ours", "--dry-run", "--formats", "rule")
    _, out, _ = run(capsys, "distill", "--data", "demo", *options, "--output", tmp_path / "out")
    assert "unknown" in out
    assert "name intents" not in out
    _, out, _ = run(capsys, "distill", "--data", "demo", "--dry-run", "--output", tmp_path / "out")
    assert "makes no calls" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-tokens", "9"), "--max-tokens is of LM teachers"),
        (("--formats", "rule,tips"), "formats ['rule', 'tips']: at least one of pattern, rule"),
        (("--ratio", "1.5"), "1.5"),
        (("--strategy", "best"), "'best'"),
        (("--scores", "s.jsonl"), "--scores is of --strategy difficulty"),
        (("--teacher", "nonsense"), "--teacher 'nonsense': annotation, or a model by its LiteLLM"),
        (("--teacher", "hosted_vllm/x", "--max-cost", "1"), "limit it by --max-tokens instead"),
    ],
)
def test_settings_are_refused_in_one_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "distill", "--data", "demo", *options, "--output", tmp_path / "out")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_an_earlier_journal_is_not_used_unasked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "journal.jsonl").write_text("an answer")
    options = ("--teacher", "hosted_vllm/ours", "--output", tmp_path)
    code, _, err = run(capsys, "distill", "--data", "demo", *options)
    assert code == 2
    assert "--resume uses them, another --output begins anew" in err
