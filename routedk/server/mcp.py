"""A program's tools, and its card, over the Model Context Protocol (MCP)."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import dspy
from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, WithJsonSchema

import routedk
from routedk.adapters.answering import answer_async
from routedk.errors import DataError, RouteDKError
from routedk.files import printable_json
from routedk.programs import tool as shared
from routedk.rules import BundleRules
from routedk.types import Answer, Session

if TYPE_CHECKING:
    from routedk.programs.generator import BundleGenerator

CARD = "routedk://card"
"""The resource that says what the program is."""
_ABOUT = "What this program is, what it was trained on, and its limits."
_WHY = (
    "Say why items of a shopper are a bundle: one sentence, the two items that tie it most, and "
    "where one is known a rule or the intent of a similar bundle that speaks for it."
)
_IDS = {
    "description": "Of the bundle's items, at least two, as bundle_items tells them.",
    "anyOf": [{"type": "array", "items": {"type": ["string", "integer"]}}],
}
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_Items = Annotated[Any, WithJsonSchema(shared.ITEMS)]
_Ids = Annotated[Any, WithJsonSchema(_IDS)]


class Found(BaseModel):
    """The bundles; none if no items belong together."""

    bundles: list[shared.ToldBundle]


class Explained(BaseModel):
    """Why items form a bundle, in known facts about them."""

    sentence: str
    ties: Annotated[list[shared.ToldItem], Field(description="The two that tie it most.")]
    rule: Annotated[str, Field(description="A rule that speaks for it; empty: none.")] = ""
    similar_intent: Annotated[str, Field(description="Of a similar bundle; empty: none.")] = ""


def make_mcp(
    loaded: Callable[[], "Awaitable[BundleGenerator]"],
    max_items: int,
    rules: BundleRules | None = None,
    counted: Callable[[Answer], Answer] = lambda answer: answer,
    lifespan: Any = None,
) -> MCPServer[Any]:
    """Make the server, for any of the protocol's transports.

    Args:
        loaded: Returns the program, with its language model set.
        max_items: Maximum number of items in a call.
        rules: The catalogue's rules.
        counted: Called with every answer, which it returns.
        lifespan: Context that is entered while the server runs, as for `MCPServer`.
    """
    server: MCPServer[Any] = MCPServer(
        "routedk", "RouteDK", version=routedk.__version__, lifespan=lifespan, subscriptions=False
    )

    def read(items: Any) -> Session:
        session = shared.read_items(items)
        if (count := len(session.items)) > max_items:
            raise DataError(f"{count} items: give at most {max_items}")
        return session

    @server.tool(description=shared.DESCRIPTION, annotations=_READS)
    @_told
    async def bundle_items(items: _Items) -> Annotated[CallToolResult, Found]:
        session = read(items)
        answer = counted(await answer_async(session, await loaded(), rules))
        bundles = shared.told(answer.bundles, answer.error, session)
        return _result(printable_json(bundles) if bundles else shared.NOTHING, {"bundles": bundles})

    @server.tool(description=_WHY, annotations=_READS)
    @_told
    async def explain_bundle(items: _Items, item_ids: _Ids) -> Annotated[CallToolResult, Explained]:
        from routedk.programs.why import explain

        session, ids = read(items), shared.read_ids(item_ids)
        with dspy.context(disable_history=True, trace=None):
            why = await asyncio.to_thread(explain, session, ids, await loaded())
        value = Explained(
            sentence=why.sentence,
            ties=[shared.told_item(session, name) for name in why.ties],
            rule=why.rule,
            similar_intent=why.similar_intent,
        ).model_dump(exclude_defaults=True)
        return _result(printable_json(value), value)

    @server.resource(CARD, name="card", description=_ABOUT, mime_type="text/markdown")
    async def card() -> str:
        from routedk.adapters.export.program_card import program_card

        return program_card(await loaded())

    return server


def _told(tool: Callable[..., Awaitable[CallToolResult]]) -> Callable[..., Any]:
    """The tool, with a user's mistakes returned as sentences."""

    @wraps(tool)
    async def call(**arguments: Any) -> CallToolResult:
        try:
            return await tool(**arguments)
        except RouteDKError as error:
            return _result(shared.mistake(error), error=True)

    return call


def _result(text: str, value: Any = None, *, error: bool = False) -> CallToolResult:
    content: list[Any] = [TextContent(type="text", text=text)]
    return CallToolResult(content=content, structured_content=value, is_error=error)
