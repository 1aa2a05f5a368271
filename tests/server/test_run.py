"""`routedk serve`: what it loads, what it refuses, and how it ends."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from routedk.adapters.experts.routed import RoutedStudent
from routedk.programs.generator import BundleGenerator
from routedk.server import run as module
from routedk.types import Session
from tests.cli.conftest import Run, run
from tests.programs.grouping.test_constraints import made
from tests.running import PATIENCE, until
from tests.scripted import scripted_lm

from .conftest import record

__all__ = ["run"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The applications that the command would serve."""
    found: list[Any] = []

    def keep(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        assert sockets[0].getsockname()[0] == "127.0.0.1"
        found.append(server.config.app)

    monkeypatch.setattr(uvicorn.Server, "run", keep)
    return found


def posted(app: Any, records: list[dict[str, Any]], **headers: str) -> list[httpx.Response]:
    """What an application answers to each session."""

    async def post() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers, timeout=PATIENCE
        ) as client:
            return [await client.post("/v1/bundles", json=one) for one in records]

    return asyncio.run(post())


def test_experts_and_program(
    run: Run, served: list[Any], routed: RoutedStudent, sessions: list[Session], tmp_path: Path
) -> None:
    routed.save(tmp_path / "experts")
    BundleGenerator().save(tmp_path / "program.json")
    (tmp_path / "token").write_text("right\n")
    options = ["--experts", tmp_path / "experts", "--program", tmp_path / "program.json"]
    options += ["--port", "0", "--token-file", tmp_path / "token", "--max-items", "3"]
    code, _, err = run("serve", *options)
    assert code == 0
    assert "serving on port " in err
    asked = list(map(record, sessions))
    assert {found.status_code for found in posted(served[0], asked)} == {401}
    found = posted(served[0], asked, Authorization="Bearer right")
    small = [len(session.items) <= 3 for session in sessions]
    assert [answer.status_code for answer in found] == [200 if one else 422 for one in small]
    assert set(small) == {True, False}


def test_rules_are_refused_at_the_start(
    run: Run,
    served: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    lm, _ = scripted_lm(lambda messages: "1 2 | cups")
    loads: list[object] = []
    monkeypatch.setattr("routedk.adapters.lm.default_lm", lambda dtype: loads.append(dtype) or lm)
    rules = tmp_path / "rules.toml"
    rules.write_text("price_from = 2\nprice_to = 1\n")
    code, _, err = run("serve", "--port", "0", "--rules", rules)
    assert (code, loads) == (2, [])
    assert "rules.toml: rules: price_from=2 and price_to=1 contradict each other" in err
    rules.write_text("max_items = 2\n")
    code, _, err = run("serve", "--port", "0", "--rules", rules)
    assert (code, len(loads), served) == (2, 1, [])
    (line,) = [line for line in err.splitlines() if "rules" in line]
    assert line.startswith("error: rules: they hold where items are grouped")


def test_a_rule_about_kinds_that_are_not_named_is_refused_at_the_start(
    run: Run, served: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = BundleGenerator()
    program.grouping = made(kinds=False)
    monkeypatch.setattr(module, "resolve_program", lambda config: program)
    (tmp_path / "rules.toml").write_text('kinds = ["complements"]\n')
    code, _, err = run("serve", "--port", "0", "--rules", tmp_path / "rules.toml")
    assert (code, served) == (2, [])
    assert "this grouping names no kinds" in err


def test_without_program_and_experts_it_is_the_packaged_bundler(
    run: Run, served: list[Any], monkeypatch: pytest.MonkeyPatch, sessions: list[Session]
) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2 | packaged")
    monkeypatch.setattr("routedk.adapters.lm.default_lm", lambda dtype: lm)
    assert run("serve", "--port", "0")[0] == 0
    (found,) = posted(served[0], [record(sessions[0])])
    assert [bundle["intent"] for bundle in found.json()["bundles"]] == ["packaged"]
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "name a file that holds one with --token-file, or listen on 127"),
        (["--token-file", "none"], "none: no such file"),
        (["--token-file", "two"], "two: expected one token, a word of ASCII characters"),
        (["--port", "0", "--experts", "none"], "none"),
        (["--max-body", "0"], "error: --max-body=0: it must be at least 1"),
        (["--max-queue", "3"], "error: --max-sessions=64: the queue holds --max-queue=3"),
    ],
)
def test_what_is_refused(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two").write_text("one two")
    code, out, err = run("serve", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_an_address_in_use(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("serve", "--port", str(port))
    assert code == 2
    assert err.startswith("error: Address already in use (while attempting to bind on address")
    assert f"('127.0.0.1', {port})" in err
    assert err.count("\n") == 1


def test_without_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "uvicorn" else name)
    code, _, err = run("serve")
    assert code == 2
    assert err == "error: serve: uvicorn not installed: pip install 'routedk[serve]'\n"


def test_the_container(run: Run) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for name in line.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert copied >= {*project["tool"]["setuptools"]["package-dir"].values(), "pyproject.toml"}
    assert all((ROOT / name).exists() for name in copied)
    let_through = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {f"!{name}" for name in copied} <= set(let_through)
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", text, re.M)
    program, *command = json.loads(entry)
    assert program == "routedk"
    code, _, err = run(*command)
    assert code == 2
    assert err.startswith(f"error: {command[-1]}: no such file")


# The scripted student answers when a line comes from stdin.
SERVER = """
import sys
sys.path.append({root!r})
import routedk.adapters.lm
from routedk.cli import main
from tests.scripted import scripted_lm

def script(messages):
    print("asked", flush=True)
    sys.stdin.readline()
    return "1 2 | at last"

lm, engine = scripted_lm(script)
answer = engine.complete

async def complete(self, request):
    import asyncio
    return await asyncio.to_thread(answer, request)

type(lm._async_engine_spec).complete = complete
routedk.adapters.lm.default_lm = lambda dtype: lm
main(["serve", "--port", {port!r}])
"""


def test_a_signal_finishes_what_is_under_way(sessions: list[Session], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = SERVER.format(root=str(ROOT), port=str(port))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ},
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def listens() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    with process, ThreadPoolExecutor(1) as clients:
        until(listens)
        address = f"http://127.0.0.1:{port}/v1/bundles"
        answer = clients.submit(httpx.post, address, json=record(sessions[0]), timeout=PATIENCE)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        until(lambda: not listens())
        assert not answer.done()
        process.stdin.write("\n")
        process.stdin.flush()
        (bundle,) = answer.result().json()["bundles"]
        assert bundle["intent"] == "at last"
        assert process.wait(PATIENCE) == -signal.SIGTERM
