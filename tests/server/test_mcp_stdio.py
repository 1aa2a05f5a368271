"""`routedk mcp`: on stdout are messages of the protocol and nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult

from routedk.server import run as run_module
from routedk.server.mcp import CARD
from tests.cli.conftest import Run, run

from .conftest import PATIENCE
from .tools import CALL, CART, asked, message

__all__ = ["run"]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("options", [[], ["--http"]])
def test_without_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setattr(run_module, "find_spec", lambda name: None if name == "mcp" else name)
    code, _, err = run("mcp", *options)
    assert code == 2
    assert err == "error: mcp: mcp not installed: pip install 'routedk[mcp]'\n"


INITIALIZE = message(
    "initialize",
    protocolVersion="2025-06-18",
    capabilities={},
    clientInfo={"name": "test", "version": "1"},
)
HELLO = (INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"})

# Loading, answering and every library may print.
STDIO = """
import sys
sys.path.append({root!r})
import os
import routedk.adapters.lm
from routedk.cli import main
from tests.scripted import scripted_lm

def script(messages):
    print("asked")
    os.system("echo of a child")
    print("\\x1b[31mred", file=sys.stderr)
    return "1 2 | tea"

lm, engine = scripted_lm(script)

def load(dtype):
    print("loading")
    os.write(1, b"of a library")
    return lm

routedk.adapters.lm.default_lm = load
main(["mcp"])
"""


def test_over_stdio_only_messages_are_on_stdout(tmp_path: Path) -> None:
    code = STDIO.format(root=str(ROOT))
    server = StdioServerParameters(
        command=sys.executable, args=["-c", code], env=dict(os.environ), cwd=tmp_path
    )

    async def talk(client: Client) -> CallToolResult:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["bundle_items", "explain_bundle"]
        assert "local/scripted" in (await client.read_resource(CARD)).contents[0].text
        return await client.call_tool("bundle_items", {"items": CART})

    with (tmp_path / "log").open("w") as log:
        found = asked(Client(stdio_client(server, errlog=log)), talk)
    (bundle,) = found.structured_content["bundles"]
    assert bundle["intent"] == "tea"
    said = (tmp_path / "log").read_text()
    for word in ("loading", "of a library", "asked", "of a child", "serving tools on stdin"):
        assert word in said

    lines = [json.dumps(one) for one in (*HELLO, {**CALL, "id": 2})]
    with started(tmp_path, code) as (process, stdin, stdout, stderr):
        stdin.write("no JSON\n" + "\n".join(lines) + "\n")
        stdin.flush()
        answers = [json.loads(stdout.readline()) for _ in range(2)]
        stdin.close()
        assert stdout.read() == ""
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in stderr.read()
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["structuredContent"]["bundles"] == [bundle]


@contextmanager
def started(folder: Path, code: str) -> Iterator[tuple[Any, IO[str], IO[str], IO[str]]]:
    """A process in a folder, and its stdin, stdout and stderr."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        yield process, process.stdin, process.stdout, process.stderr


def test_rules_that_cannot_hold_end_it_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("max_items = 2\n")
    code = STDIO.format(root=str(ROOT)).replace('["mcp"]', '["mcp", "--rules", "rules.toml"]')
    with started(tmp_path, code) as (process, _, stdout, stderr):
        # Nobody asked anything, and stdin is open.
        assert process.wait(PATIENCE) == 2
        assert stdout.read() == ""
        # In between is what loading prints, sooner or later.
        told = stderr.read().replace("of a library", "").splitlines()
    (line,) = (line for line in told if line.startswith("error: "))
    assert line.startswith("error: rules: they hold where items are grouped")


def test_over_stdio_a_client_may_leave(tmp_path: Path) -> None:
    with started(tmp_path, STDIO.format(root=str(ROOT))) as (process, stdin, stdout, stderr):
        stdout.close()
        stdin.write(json.dumps(HELLO[0]) + "\n")
        stdin.flush()
        # By then the answer to the first message could not be written.
        said = next(line for line in stderr if "serving tools" in line)
        stdin.close()
        said += stderr.read()
        assert "Traceback" not in said
        process.wait(PATIENCE)


def test_over_stdio_an_error_in_loading_ends_it(tmp_path: Path) -> None:
    code = "import sys; from routedk.cli import main; main(['mcp', '--experts', 'none'])"
    with started(tmp_path, code) as (process, _, stdout, stderr):
        assert process.wait(PATIENCE) == 2
        assert stdout.read() == ""
        assert stderr.read().startswith("error: none/routing.json: no such file")
