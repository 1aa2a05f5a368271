"""Sessions for ``routedk generate``, and a scripted student that answers them."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routedk.cli import main

# DSPy opens its cache at import.
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="routedk-dspy-"))

SESSIONS = 10
Messages = list[dict[str, str]]
Ended = tuple[int, str, str]


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Ended:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def records(count: int = SESSIONS) -> list[dict[str, Any]]:
    return [
        {
            "session_id": f"s{k}",
            "items": [{"id": f"{k}-{n}", "title": f"item {k} {n} é"} for n in range(2 + k % 3)],
        }
        for k in range(count)
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.jsonl"
    path.write_text("\n".join(map(json.dumps, records())), encoding="utf-8")
    return path


class Asked:
    """The scripted student: what it was asked, and a hook before each answer."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.before: Callable[[str], None] = lambda session: None

    def __call__(self, messages: Messages) -> str:
        session = "s" + messages[-1]["content"].split(" ")[2]
        self.before(session)
        self.sessions.append(session)
        return f"1 2 | für {session}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    from tests.scripted import scripted_lm

    script = Asked()
    model, _ = scripted_lm(script)
    monkeypatch.setattr("routedk.cli.generate.resolve_lm", lambda **options: model)
    return script


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def expected(count: int = SESSIONS) -> list[dict[str, Any]]:
    return [
        {
            "session_id": f"s{k}",
            "bundles": [{"items": [f"{k}-0", f"{k}-1"], "intent": f"für s{k}"}],
        }
        for k in range(count)
    ]
