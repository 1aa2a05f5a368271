"""The command line in this process, and a scripted student that answers it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routedk.cli import main

SESSIONS = 10

Run = Callable[..., tuple[int, str, str]]
Messages = list[dict[str, str]]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: its exit code, and what it says on stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture(scope="session")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the annotation teacher makes of the demo's training sessions."""
    from routedk import distill, load_sessions, split_sessions, write_knowledge
    from routedk.data import DataOptions

    folder = tmp_path_factory.mktemp("knowledge")
    parts = split_sessions(load_sessions("demo"), DataOptions())
    made = distill(parts["train"], store=folder / "store")
    write_knowledge(made, folder / "knowledge.jsonl")
    return folder / "knowledge.jsonl"


class Script:
    """The scripted student: `answer` may be replaced; `requests` are what it was asked."""

    def __init__(self) -> None:
        from tests.scripted import scripted_lm

        self.answer: Callable[[Messages], str] = lambda messages: "1 2 | together"
        self.lm, self._engine = scripted_lm(lambda messages: self.answer(messages))

    @property
    def requests(self) -> list[Messages]:
        return self._engine.requests


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr("routedk.adapters.lm.resolve_lm", lambda *names: script.lm)
    return script


def records(count: int) -> list[dict[str, Any]]:
    """Native session records without gold."""
    return [
        {
            "session_id": f"s{k}",
            "items": [{"id": f"{k}-{n}", "title": f"item {k} {n} é"} for n in range(2 + k % 3)],
        }
        for k in range(count)
    ]


def write_records(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "sessions.jsonl", records(SESSIONS))


def name_of(messages: Messages) -> str:
    """The session that is asked about."""
    return "s" + messages[-1]["content"].split(" ")[2]


@pytest.fixture
def asked(script: Script) -> Script:
    script.answer = lambda messages: f"1 2 | für {name_of(messages)}"
    return script
