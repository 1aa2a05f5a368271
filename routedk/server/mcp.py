"""A program's tools, and its card, over the Model Context Protocol (MCP)."""

import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel

import routedk
from routedk.errors import DataError, RouteDKError
from routedk.programs.tool import (
    DESCRIPTION,
    ITEMS,
    NOTHING,
    ToldBundle,
    mistake,
    read_items,
    told,
)
from routedk.types import Answer, Session

CARD = "routedk://card"
"""The resource that says what the program is."""
_MARKDOWN = "text/markdown"

logger = logging.getLogger(__name__)


class Found(BaseModel):
    """The bundles, none where no items belong together."""

    bundles: list[ToldBundle]


def make_mcp(
    ask: Callable[[Session], Awaitable[Answer]],
    card: Callable[[], Awaitable[str]],
    max_items: int,
) -> Server[Any]:
    """Make the server, for any of the protocol's transports.

    Args:
        ask: Asks a program for the bundles of one session.
        card: Says what the program is, in Markdown.
        max_items: Most items of a call.
    """

    async def bundle_items(items: Any = None, **others: Any) -> CallToolResult:
        session = _session(items, others)
        answer = await ask(session)
        bundles = told(answer.bundles, answer.error, session)
        return _result(_readable(bundles) if bundles else NOTHING, {"bundles": bundles})

    def _session(items: Any, others: dict[str, Any]) -> Session:
        session = read_items(items, others)
        if (count := len(session.items)) > max_items:
            raise DataError(f"{count} items: give at most {max_items}")
        return session

    tools = {"bundle_items": bundle_items}
    listed = [_tool("bundle_items", DESCRIPTION, {"items": ITEMS}, Found)]

    async def list_tools(_: _Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    async def call_tool(_: _Context, params: CallToolRequestParams) -> CallToolResult:
        if (tool := tools.get(params.name)) is None:
            raise MCPError(INVALID_PARAMS, f"no such tool: there is {', '.join(tools)}")
        try:
            return await tool(**params.arguments or {})
        except RouteDKError as error:
            return _result(mistake(error), error=True)
        except Exception:
            logger.exception("a tool failed")
            return _result("The server failed: its log says why.", error=True)

    async def list_resources(_: _Context, __: PaginatedRequestParams | None) -> ListResourcesResult:
        about = "What this program is, what it was trained on, and its limits."
        one = Resource(uri=CARD, name="card", description=about, mime_type=_MARKDOWN)
        return ListResourcesResult(resources=[one])

    async def read_resource(_: _Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        if str(params.uri) != CARD:
            raise MCPError(INVALID_PARAMS, f"no such resource: there is {CARD}")
        text = TextResourceContents(uri=CARD, mime_type=_MARKDOWN, text=await card())
        return ReadResourceResult(contents=[text])

    return Server(
        "routedk",
        version=routedk.__version__,
        title="RouteDK",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
    )


_Context = ServerRequestContext[Any]


def _tool(name: str, about: str, arguments: dict[str, Any], result: type[BaseModel]) -> Tool:
    return Tool(
        name=name,
        description=about,
        input_schema={
            "type": "object",
            "properties": arguments,
            "required": [*arguments],
            "additionalProperties": False,
        },
        output_schema=result.model_json_schema(),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


def _result(text: str, value: Any = None, *, error: bool = False) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=value, is_error=error
    )


def _readable(value: Any) -> str:
    """A value as JSON that may be printed anywhere: what a terminal would obey is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda one: one[0] if one[0].isprintable() else _escaped(one[0]), text)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]
