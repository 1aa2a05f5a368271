"""`routedk review`: what it begins with, what it serves, and what it refuses."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from .conftest import Run, Script, records, write_records


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The applications that the command would serve."""
    found: list[Any] = []

    def keep(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        found.append(server.config.app)

    monkeypatch.setattr(uvicorn.Server, "run", keep)
    monkeypatch.chdir(tmp_path)
    return found


def asked_for(app: Any, method: str, path: str, **request: Any) -> str:
    """The page that an application answers with."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **request)

    answer = asyncio.run(ask())
    assert answer.status_code == 200
    return answer.text


def shown(app: Any, session: str = "s0") -> str:
    return asked_for(app, "GET", f"/?session={session}")


def test_predictions_are_reviewed(run: Run, served: list[Any], data: Path, tmp_path: Path) -> None:
    bundle = {"items": ["2-0", "2-1"], "intent": "predicted", "confidence": 0.25}
    made = write_records(tmp_path / "made.jsonl", [{"session_id": "s2", "bundles": [bundle]}])
    options = ("--predictions", made, "--port", "0", "--user", "ann", "--output", "out/gold.jsonl")
    code, out, err = run("review", "--data", data, *options)
    assert (code, out) == (0, "")
    assert "review at http://127.0.0.1:" in err
    assert 'value="predicted"' in shown(served[0], "s2")
    assert "as no bundle" in shown(served[0])
    asked_for(served[0], "POST", "/", json={"session": "s2", "base": 0, "do": "accept"})
    (line,) = Path("out/gold.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["reviewed_by"] == "ann"
    # The same command goes on.
    assert run("review", "--data", data, *options)[0] == 0
    assert "✓ Accepted" in shown(served[1], "s2")


def test_a_session_begins_with_its_own_bundles_or_those_of_the_bundler(
    run: Run, served: list[Any], tmp_path: Path, asked: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routedk.adapters.lm.default_lm", lambda dtype: asked.lm)
    found = records(3)
    found[1]["bundles"] = [{"items": ["1-0", "1-1"], "intent": "own"}]
    data = write_records(tmp_path / "some.jsonl", found)
    monkeypatch.setenv("USER", "")
    assert run("review", "--data", data, "--port", "0")[0] == 0
    assert 'placeholder="reviewer"' in shown(served[0], "s1")
    assert 'value="own"' in shown(served[0], "s1")
    assert 'value="für s2"' in shown(served[0], "s2")
    assert len(asked.requests) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "name a file that holds one with --token-file, or listen on 127"),
        (["--token-file", "none"], "none: no such file"),
        (["--predictions", "none"], "none: no such file"),
        (["--output", "sessions.jsonl"], "sessions.jsonl.history is not next to it"),
        (["--split", "all", "--port", "70000"], "port=70000: it must be at most 65535"),
    ],
)
def test_what_is_refused(
    run: Run, served: list[Any], data: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    made = write_records(tmp_path / "made.jsonl", [{"session_id": "s2", "bundles": []}])
    code, out, err = run("review", "--data", data, "--port", "0", "--predictions", made, *options)
    assert (code, out, served) == (2, "", [])
    assert message in err
    assert err.count("\n") == 1
