"""What the tests of tools share: a server of them, and how a client talks with it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolResult, TextContent

from routedk.programs.generator import BundleGenerator
from routedk.server.mcp import make_mcp

from .conftest import PATIENCE

CART = [
    {"id": 7, "title": "red kettle", "price": 19.99, "categories": ["Kitchen", "Kettles"]},
    {"title": "tea cup", "price": "19,99 EUR", "categories": "Kitchen"},
    {"title": "usb cable", "price": None},
]
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


def served(program: BundleGenerator, max_items: int = 200) -> MCPServer[Any]:
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
