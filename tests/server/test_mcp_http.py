"""Tools over streamable HTTP: who is answered, and the server's limits."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from routedk.programs.generator import BundleGenerator
from routedk.programs.tool import bundle_tool
from routedk.types import Session
from tests.running import PATIENCE, until

from .conftest import GatedEngine, Start, record
from .tools import CALL, CART, HEADERS, MODES, message


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
    metrics = client.get("/metrics").text
    for status, count in ((421, 3), (403, 3)):
        assert f'seconds_count{{route="other",status="{status}"}} {count}.0' in metrics
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
