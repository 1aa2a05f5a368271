"""An agent's tools over the Model Context Protocol, asked by the SDK's own client."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import httpx
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.types import CallToolResult, TextContent

from routedk.programs.generator import BundleGenerator
from routedk.programs.tool import bundle_tool, read_items
from routedk.programs.why import explain
from routedk.server import run as run_module
from routedk.server.mcp import CARD, make_mcp
from routedk.types import Session
from tests.cli.conftest import Run, run
from tests.scripted import scripted_lm

from .conftest import PATIENCE, GatedEngine, Start, record, until

__all__ = ["run"]

ROOT = Path(__file__).parents[2]
CART = [
    {"id": 7, "title": "red kettle", "price": 19.99, "categories": ["Kitchen", "Kettles"]},
    {"title": "tea cup", "price": "19,99 EUR", "categories": "Kitchen"},
    {"title": "usb cable", "price": None},
]
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


def served(program: BundleGenerator, max_items: int = 200) -> Server[Any]:
    async def loaded() -> BundleGenerator:
        return program

    return make_mcp(loaded, max_items)


def asked(client: Any, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    """What comes of talking with a server."""

    async def run() -> Any:
        async with asyncio.timeout(PATIENCE), client as connected:
            return await talk(connected)

    return asyncio.run(run())


def calling(**arguments: Any) -> Callable[[Client], Awaitable[CallToolResult]]:
    return lambda client: client.call_tool("bundle_items", arguments)


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


CALL = message("tools/call", name="bundle_items", arguments={"items": CART})
HEADERS = {"Accept": "application/json, text/event-stream"}


def test_the_tool_is_typed_and_told(program: BundleGenerator) -> None:
    tool, other = asked(Client(served(program)), lambda client: client.list_tools()).tools
    mine = bundle_tool(program)
    assert tool.description == mine.desc
    assert "the intent that ties its items" in tool.description
    assert tool.input_schema["properties"] == mine.args
    assert tool.input_schema["required"] == ["items"]
    assert tool.output_schema["properties"]["bundles"]["type"] == "array"
    assert other.input_schema["properties"]["items"] == mine.args["items"]
    assert other.input_schema["required"] == ["items", "item_ids"]
    assert tool.annotations.read_only_hint
    assert other.annotations.read_only_hint


@MODES
def test_it_answers_as_the_tool_of_dspy(program: BundleGenerator, mode: Any) -> None:
    mine = bundle_tool(program)(items=CART)
    for items in (CART, json.dumps(CART)):
        found = asked(Client(served(program), mode=mode), calling(items=items))
        assert found.structured_content == {"bundles": mine}
        assert json.loads(text(found)) == mine
        assert not found.is_error
    assert mine[0]["items"][0] == {"id": "7", "title": "red kettle"}
    assert mine[0]["kind"] == "complements"


@MODES
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"items": []},
        {"items": "red kettle"},
        {"items": [*CART, {"id": 7, "title": "hub"}]},
        {"items": [CART[0], {"id": "x" * 5000}]},
        {"items": CART, "cart": 1},
    ],
)
def test_mistakes_are_told_in_the_same_sentences(
    program: BundleGenerator, engine: GatedEngine, arguments: dict[str, Any], mode: Any
) -> None:
    found = asked(Client(served(program), mode=mode), calling(**arguments))
    assert found.is_error
    assert text(found) == bundle_tool(program)(**arguments)
    assert engine.asked == 0


def test_it_explains_as_the_library(program: BundleGenerator) -> None:
    async def talk(client: Client) -> list[CallToolResult]:
        found = await client.call_tool("bundle_items", {"items": CART})
        items = found.structured_content["bundles"][0]["items"]
        ids = [item["id"] for item in items]
        given = {"items": CART, "item_ids": ids}
        return [
            await client.call_tool("explain_bundle", given),
            await client.call_tool("explain_bundle", {**given, "item_ids": json.dumps(ids)}),
        ]

    one, other = asked(Client(served(program)), talk)
    wanted = explain(read_items(CART), ["7", "#2"], program)
    assert one.structured_content == other.structured_content == json.loads(text(one))
    assert one.structured_content == {
        "sentence": wanted.sentence,
        "ties": [{"id": "7", "title": "red kettle"}, {"id": "#2", "title": "tea cup"}],
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "item_ids must be a list of at least two ids"),
        ({"item_ids": ["7"]}, "item_ids must be a list of at least two ids"),
        ({"item_ids": "7 b"}, "item_ids must be a list of at least two ids"),
        ({"item_ids": ["7", "b"]}, "session 'items' has no item 'b'"),
        ({"item_ids": [7, "7"]}, "a bundle names an item twice: ['7', '7']"),
        ({"item_ids": [7, "#2"], "items": []}, "items must be a list of at least one item"),
        ({"item_ids": [7, "#2"], "bundle": 1}, "There is no argument bundle"),
    ],
)
def test_mistakes_in_what_to_explain(
    program: BundleGenerator, engine: GatedEngine, arguments: dict[str, Any], told: str
) -> None:
    given = {"items": CART, **arguments}
    found = asked(Client(served(program)), lambda client: client.call_tool("explain_bundle", given))
    assert found.is_error
    assert text(found).startswith(told)
    assert engine.asked == 0


def test_no_bundles_and_too_many_items(program: BundleGenerator, engine: GatedEngine) -> None:
    one = asked(Client(served(program)), calling(items=CART[:1]))
    assert text(one) == bundle_tool(program)(items=CART[:1]) == "No items belong together."
    assert one.structured_content == {"bundles": []}
    many = asked(Client(served(program, max_items=2)), calling(items=CART))
    assert many.is_error
    assert text(many) == "3 items: give at most 2"
    assert engine.asked == 0


def test_what_is_not_there(program: BundleGenerator) -> None:
    async def talk(client: Client) -> None:
        with pytest.raises(MCPError, match="no such tool: there is bundle_items, explain_bundle"):
            await client.call_tool("bundle", {})
        with pytest.raises(MCPError, match=f"no such resource: there is {CARD}"):
            await client.read_resource("routedk://other")

    asked(Client(served(program)), talk)


@MODES
def test_a_failure_tells_nothing(mode: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def loaded() -> BundleGenerator:
        raise RuntimeError("a secret")

    found = asked(Client(make_mcp(loaded, 9), mode=mode), calling(items=CART))
    assert found.is_error
    assert text(found) == "The server failed: its log says why."
    assert "a secret" in caplog.text


def test_the_card(program: BundleGenerator) -> None:
    async def talk(client: Client) -> Any:
        (one,) = (await client.list_resources()).resources
        (content,) = (await client.read_resource(one.uri)).contents
        assert one.mime_type == content.mime_type == "text/markdown"
        return content

    card = asked(Client(served(program)), talk).text
    for fact in (
        f"| program | fingerprint {program.fingerprint()[:16]} |",
        f"| language model | {program.generate.lm.model} |",
        f"(fingerprint {program.generate.lm.engine.generator.base.fingerprint}) |",
        "| grouping | fingerprint pairs |",
        "## Limits",
    ):
        assert fact in card


def test_an_agent_of_dspy(program: BundleGenerator) -> None:
    """Another model is the agent; it calls the tool with a wrong list, then with a right one."""
    calls = iter([[*CART, CART[0]], CART])

    def agent(messages: list[dict[str, str]]) -> str:
        if "starting with the field `[[ ## reaso" in messages[-1]["content"]:
            return "[[ ## reasoning ## ]]\nSeen.\n\n[[ ## answer ## ]]\nkettle and cup"
        items = next(calls, None)
        name, arguments = ("finish", {}) if items is None else ("bundle_items", {"items": items})
        return (
            f"[[ ## next_thought ## ]]\nBundle.\n\n[[ ## next_tool_name ## ]]\n{name}\n\n"
            f"[[ ## next_tool_args ## ]]\n{json.dumps(arguments)}\n\n[[ ## completed ## ]]"
        )

    lm, engine = scripted_lm(agent)

    async def talk(client: Client) -> Any:
        tools = [
            dspy.Tool.from_mcp_tool(client, tool) for tool in (await client.list_tools()).tools
        ]
        with dspy.context(lm=lm):
            react = dspy.ReAct("cart, question -> answer", tools=tools)
            return await react.acall(cart=json.dumps(CART), question="What goes together?")

    found = asked(Client(served(program)), talk)
    assert found.answer == "kettle and cup"
    assert "items 1 and 4 have the same id '7'" in found.trajectory["observation_0"]
    assert json.loads(found.trajectory["observation_1"]) == bundle_tool(program)(items=CART)
    assert "Group a shopper's items into bundles" in engine.requests[0][0]["content"]
    assert "'price': {'type': ['number', 'string']}" in engine.requests[0][0]["content"]


@MODES
def test_over_http_with_a_token(start: Start, program: BundleGenerator, mode: Any) -> None:
    url = f"{start(token='right').base_url}/mcp"

    async def talk(token: str) -> CallToolResult:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            return await client.call_tool("bundle_items", {"items": CART})

    found = asyncio.run(talk("right"))
    assert found.structured_content == {"bundles": bundle_tool(program)(items=CART)}
    with pytest.raises(ExceptionGroup):
        asyncio.run(talk("wrong"))
    assert httpx.post(url, json=CALL, headers=HEADERS).status_code == 401


@pytest.mark.parametrize("path", ["/mcp", "/v1/bundles", "/healthz"])
def test_host_and_origin(start: Start, engine: GatedEngine, path: str) -> None:
    client, shop = start(), start(cors_origins=("https://shop.example",))
    port = client.base_url.port
    for one, headers, status in (
        (client, {"Host": "shop.example"}, 421),
        (client, {"Host": f"127.0.0.1.evil.example:{port}"}, 421),
        (client, {"Host": "[bad"}, 421),
        (client, {"Origin": "https://shop.example"}, 403),
        (client, {"Origin": "null"}, 403),
        (client, {"Origin": f"http://localhost:{port}"}, 403),
        (shop, {"Origin": "https://other.example"}, 403),
    ):
        found = one.post(path, json=CALL, headers={**HEADERS, **headers})
        assert (found.status_code, found.json()["error"]["code"]) == (status, None)
    assert engine.asked == 0
    for one, headers in (
        (client, {"Host": f"localhost:{port}"}),
        (client, {"Host": "[::1]"}),
        (client, {"Origin": f"http://127.0.0.1:{port}"}),
        (shop, {"Origin": "https://shop.example"}),
    ):
        found = one.post(path, json=CALL, headers={**HEADERS, **headers})
        assert found.status_code == {"/mcp": 200, "/v1/bundles": 422, "/healthz": 405}[path]


def test_with_a_token_any_host_may_be_asked_for(
    start: Start, tmp_path: Path, sessions: list[Session]
) -> None:
    (tmp_path / "token").write_text("right")
    client = start(token="right", token_file=tmp_path / "token")
    headers = {"Host": "shop.example", "Authorization": "Bearer right"}
    asked = record(sessions[0])
    assert client.post("/v1/bundles", json=asked, headers=headers).status_code == 200
    page = {**headers, "Origin": "https://shop.example"}
    assert client.post("/v1/bundles", json=asked, headers=page).status_code == 200
    page["Origin"] = "https://other.example"
    assert client.post("/v1/bundles", json=asked, headers=page).status_code == 403


def test_the_limits_of_the_server_hold(start: Start, engine: GatedEngine) -> None:
    client = start(max_body=2000, max_queue=1, max_sessions=1)
    large = {**CALL, "padding": "x" * 2000}
    chunks = iter([json.dumps(large).encode()])
    headers = {**HEADERS, "Content-Type": "application/json"}
    assert client.post("/mcp", json=large, headers=HEADERS).status_code == 413
    assert client.post("/mcp", content=chunks, headers=headers).status_code == 413
    assert client.get("/mcp", headers=HEADERS).status_code == 405
    engine.gate.clear()
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(client.post, "/mcp", json=CALL, headers=HEADERS)
        until(lambda: bool(engine.batches))
        full = client.post("/mcp", json=CALL, headers=HEADERS)
        assert (full.status_code, full.headers["Retry-After"]) == (429, "1")
        engine.gate.set()
        assert first.result().json()["result"]["isError"] is False
    metrics = client.get("/metrics").text
    assert "routedk_under_way 0.0" in metrics
    assert 'routedk_sessions_total{outcome="answered"} 1.0' in metrics
    assert 'routedk_request_seconds_count{route="/mcp",status="200"} 1.0' in metrics


@pytest.mark.parametrize("modern", [False, True])
def test_a_client_that_leaves_is_canceled(start: Start, engine: GatedEngine, modern: bool) -> None:
    client = start(timeout=0.3)
    engine.gate.clear()
    headers, body = dict(HEADERS), CALL
    if modern:
        version = "2026-07-28"
        headers |= {"MCP-Protocol-Version": version, "Mcp-Method": "tools/call"}
        headers["Mcp-Name"] = "bundle_items"
        meta = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        body = message("tools/call", name="bundle_items", arguments={"items": CART}, _meta=meta)
    late = client.post("/mcp", json=body, headers=headers)
    assert late.status_code == 504
    until(lambda: bool(engine.batches))
    until(lambda: all(job.future.cancelled() for batch in engine.batches for job in batch))
    assert "routedk_under_way 0.0" in client.get("/metrics").text


def test_a_server_without_the_extra_has_no_tools(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routedk.server.app.find_spec", lambda name: None)
    assert start().post("/mcp", json=CALL, headers=HEADERS).status_code == 404


@pytest.mark.parametrize("options", [[], ["--http"]])
def test_without_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setattr(run_module, "find_spec", lambda name: None if name == "mcp" else name)
    code, _, err = run("mcp", *options)
    assert code == 2
    assert err == "error: mcp: mcp not installed: pip install 'routedk[mcp]'\n"


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

    hello = message("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={})
    hello["params"]["clientInfo"] = {"name": "test", "version": "1"}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    lines = [json.dumps(one) for one in (hello, ready, {**CALL, "id": 2})]
    with subprocess.Popen(
        server.command and [server.command, *server.args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("no JSON\n" + "\n".join(lines) + "\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in (hello, CALL)]
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(PATIENCE) == 0
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["structuredContent"]["bundles"] == [bundle]


def test_over_stdio_a_client_may_leave(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STDIO.format(root=str(ROOT))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        hello = message("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={})
        hello["params"]["clientInfo"] = {"name": "test", "version": "1"}
        process.stdin.write(json.dumps(hello) + "\n")
        process.stdin.flush()
        # By then the answer to the first message could not be written.
        said = next(line for line in process.stderr if "serving tools" in line)
        process.stdin.close()
        said += process.stderr.read()
        assert "Traceback" not in said
        process.wait(PATIENCE)


def test_over_stdio_an_error_in_loading_ends_it(tmp_path: Path) -> None:
    command = "import sys; from routedk.cli import main; main(['mcp', '--experts', 'none'])"
    with subprocess.Popen(
        [sys.executable, "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.wait(PATIENCE) == 2
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == ""
        assert process.stderr.read().startswith("error: none/routing.json: no such file")
