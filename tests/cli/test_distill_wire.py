"""``routedk distill`` with a teacher over HTTP."""

import json
from pathlib import Path

import pytest

from routedk.cli import main

from ..programs.wire import FaultProxy, Reply  # noqa: TID252

_SAID = "1 2 | tea"
_ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "fake",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": _SAID},
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
SESSIONS = 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [
        {
            "session_id": f"s{n}",
            "items": [
                {"id": i, "title": f"{word} {n}"} for i, word in zip("abc", WORDS, strict=True)
            ],
            "bundles": [{"items": ["a", "b"] if n % 2 else ["b", "c"], "intent": "tea"}],
        }
        for n in range(SESSIONS)
    ]
    path = tmp_path / "sessions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


WORDS = ("kettle", "cup", "sock")


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_difficulty_is_told_by_the_teacher_and_paid_for_once(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    folder = tmp_path / "out"
    with FaultProxy().running() as proxy:
        proxy.for_ever = Reply(200, json.dumps(_ANSWER))
        options = ("--data", data, "--teacher", "openai/fake", "--api-base", proxy.address)
        options += ("--strategy", "difficulty", "--ratio", "0.3", "--output", folder)
        code, out, _ = run(capsys, "distill", *options, "--dry-run")
        assert (code, proxy.arrivals, folder.exists()) == (0, [], False)
        assert "score" in out
        code, out, err = run(capsys, "distill", *options)
        assert code == 0, err
        manifest = json.loads((folder / "manifest.json").read_text())
        scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
        # Those whose gold the one answer is not.
        hard = {record["session_id"] for record in scores if record["score"] < 1}
        assert set(manifest["sessions"]) <= hard
        assert manifest["spent"]["run"]["calls"] == len(proxy.arrivals)
        # The answers that told what is difficult are the ones whose mistakes are looked at.
        assert manifest["spent"]["replayed"] >= len(manifest["sessions"])
        assert set(manifest["report"]["dropped_thoughts"]) == set(manifest["sessions"])
        asked = len(proxy.arrivals)
        code, out, _ = run(capsys, "distill", *options, "--resume")
        assert code == 0
        assert "Calls: 0 made" in out
        assert len(proxy.arrivals) == asked
        code, _, err = run(capsys, "distill", *options)
        assert code == 2
        assert "--resume uses them" in err


def test_a_teacher_that_fails_for_good_fails_the_run_in_one_line(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with FaultProxy().running() as proxy:
        proxy.for_ever = Reply(401, json.dumps({"error": {"message": "no such key"}}))
        options = ("--teacher", "openai/fake", "--api-base", proxy.address)
        code, _, err = run(
            capsys, "distill", "--data", data, *options, "--output", tmp_path / "out"
        )
    assert code == 2
    assert "no such key" in err.strip().splitlines()[-1]
    assert not (tmp_path / "out" / "knowledge.jsonl").exists()
