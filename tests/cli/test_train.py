import json
from pathlib import Path
from typing import Any

import pytest

import routedk
from routedk import TrainConfig
from routedk.data.knowledge_file import read_knowledge

from .conftest import Run, records, write_records

MANIFEST = {"stage": "experts", "key": "0", "version": "0", "seconds": 1.0}
ROUTING = {
    "schema": 2,
    "student": {"name": "tiny", "fingerprint": "0"},
    "experts": ["base", "rule", "thought"],
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj"],
    "layers": 8,
    "fusion": "softmax",
    "training": {"tokens": {"base": 123456, "router": 7}},
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What `train` is called with, instead of training."""
    found: list[tuple[Any, ...]] = []

    def train(*arguments: Any) -> Path:
        found.append(arguments)
        folder = tmp_path / "artifact"
        folder.mkdir(exist_ok=True)
        (folder / "routing.json").write_text(json.dumps(ROUTING))
        (folder / "manifest.json").write_text(json.dumps(MANIFEST))
        return folder

    monkeypatch.setattr(routedk, "train", train, raising=False)
    return found


def test_options_reach_the_training(
    run: Run, knowledge: Path, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    output = tmp_path / "experts"
    options = ("--epochs", "2", "--layers", "0", "--max-sessions", "9", "--answer-form", "bundles")
    data = ("--data", "demo", "--knowledge", knowledge)
    for _ in range(2):  # An earlier output is replaced.
        code, out, _ = run("train", *data, "--output", output, *options)
        assert code == 0
    sessions, base, config = calls[0]
    assert config == TrainConfig(epochs=2, layers=0, max_sessions=9, answer_form="bundles")
    assert len(sessions) == 210
    assert base == read_knowledge(knowledge)
    assert "123,456" in out
    assert "Experts: base, rule, thought; fusion: softmax" in out
    assert json.loads((output / "routing.json").read_text()) == ROUTING


def test_another_process_writes_nothing(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    knowledge: Path,
    tmp_path: Path,
    calls: list[tuple[Any, ...]],
) -> None:
    monkeypatch.setenv("RANK", "1")
    output = tmp_path / "experts"
    assert run("train", "--data", "demo", "--knowledge", knowledge, "--output", output)[0] == 0
    assert len(calls) == 1
    assert not output.exists()


def test_knowledge_of_another_domain_is_kept_apart(
    run: Run, knowledge: Path, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    lines = [json.loads(line) for line in knowledge.read_text().splitlines()]
    rule = {"text": "Lens with camera."}
    changed = [line | (rule if line["kind"] == "rule" else {}) for line in lines]
    other = write_records(tmp_path / "other.jsonl", changed)
    options = ("--knowledge", knowledge, "--knowledge", f"Electronic={other}")
    assert run("train", "--data", "demo", *options, "--output", tmp_path / "e")[0] == 0
    mine, merged = read_knowledge(knowledge), calls[0][1]
    count = len(mine.thoughts)
    assert merged.thoughts[:count] == mine.thoughts
    assert {thought.session_id for thought in merged.thoughts[count:]} == {
        f"Electronic:{thought.session_id}" for thought in mine.thoughts
    }
    assert [r.text for r in merged.rules] == [*(r.text for r in mine.rules), "Lens with camera."]


@pytest.mark.parametrize("command", ["train", "compile"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seed", "5"), "test sessions, e.g. 'demo-"),
        (("--knowledge", "none.jsonl"), "none.jsonl: no such file"),
    ],
)
def test_knowledge_that_is_refused(
    run: Run,
    knowledge: Path,
    tmp_path: Path,
    calls: list[tuple[Any, ...]],
    command: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    """With another seed the split differs: the knowledge is that of test sessions."""
    data = ("--data", "demo", "--knowledge", knowledge, "--output", tmp_path / "out")
    code, _, err = run(command, *data, *options)
    assert (code, calls) == (2, [])
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_domain_is_not_named_as_sessions_are(
    run: Run, knowledge: Path, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    sessions = [record | {"session_id": f"d:{n}"} for n, record in enumerate(records(20))]
    data = write_records(tmp_path / "sessions.jsonl", sessions)
    options = ("--knowledge", f"d={knowledge}", "--output", tmp_path / "e")
    code, _, err = run("train", "--data", data, *options)
    assert (code, calls) == (2, [])
    assert "would be taken for one of d: call the domain something else" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "0"), "epochs=0.0: must be above 0"),
        (("--fusion", "luck"), "'luck'"),
        (("--output", "."), ".: exists already: name another folder, or remove it"),
    ],
)
def test_what_is_refused(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    knowledge: Path,
    tmp_path: Path,
    calls: list[tuple[Any, ...]],
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("mine")
    data = ("--data", "demo", "--knowledge", knowledge, "--output", "e")
    code, _, err = run("train", *data, *options)
    assert (code, calls) == (2, [])
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
