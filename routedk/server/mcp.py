"""A program's tools, and its card, over the Model Context Protocol (MCP)."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import dspy
from mcp import types
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

import routedk
from routedk.adapters.generate import answer_async
from routedk.errors import DataError, RouteDKError
from routedk.files import printable_json
from routedk.programs import tool as shared
from routedk.programs.batch import in_thread
from routedk.rules import BundleRules
from routedk.types import Answer, Session

if TYPE_CHECKING:
    from routedk.programs.generator import BundleGenerator

CARD = "routedk://card"
"""The resource that says what the program is."""
_MARKDOWN = "text/markdown"

_WHY = (
    "Say why items of a shopper are a bundle: one sentence, the two items that tie it most, and "
    "where one is known a rule or the intent of a similar bundle that speaks for it."
)
_IDS = {
    "description": "Of the bundle's items, at least two, as bundle_items tells them.",
    "anyOf": [{"type": "array", "items": {"type": ["string", "integer"]}}],
}

logger = logging.getLogger(__name__)


class Found(BaseModel):
    """The bundles, none where no items belong together."""

    bundles: list[shared.ToldBundle]


class Explained(BaseModel):
    """Why items are a bundle, in facts that are known of them."""

    sentence: str
    ties: Annotated[list[shared.ToldItem], Field(description="The two that tie it most.")]
    rule: Annotated[str, Field(description="A rule that speaks for it; empty: none.")] = ""
    similar_intent: Annotated[str, Field(description="Of a similar bundle; empty: none.")] = ""


def make_mcp(
    loaded: Callable[[], "Awaitable[BundleGenerator]"],
    max_items: int,
    rules: BundleRules | None = None,
    counted: Callable[[Answer], Answer] = lambda answer: answer,
) -> Server[Any]:
    """Make the server, for any of the protocol's transports.

    Args:
        loaded: Gives the program, with its language model set.
        max_items: Most items of a call.
        rules: Of the catalogue.
        counted: Is told every answer.
    """

    def read(items: Any, others: Iterable[str]) -> Session:
        session = shared.read_items(items, others)
        if (count := len(session.items)) > max_items:
            raise DataError(f"{count} items: give at most {max_items}")
        return session

    async def bundle_items(items: Any = None, **others: Any) -> types.CallToolResult:
        session = read(items, others)
        answer = counted(await answer_async(session, await loaded(), rules))
        bundles = shared.told(answer.bundles, answer.error, session)
        return _result(printable_json(bundles) if bundles else shared.NOTHING, {"bundles": bundles})

    async def explain_bundle(
        items: Any = None, item_ids: Any = None, **others: Any
    ) -> types.CallToolResult:
        from routedk.programs.why import explain

        session, ids = read(items, others), shared.read_ids(item_ids)
        with dspy.context(disable_history=True, trace=None):
            why = await in_thread(explain, session, ids, await loaded())
        value = Explained(
            sentence=why.sentence,
            ties=[shared.told_item(session, name) for name in why.ties],
            rule=why.rule,
            similar_intent=why.similar_intent,
        ).model_dump(exclude_defaults=True)
        return _result(printable_json(value), value)

    tools = {"bundle_items": bundle_items, "explain_bundle": explain_bundle}
    listed = [
        _tool("bundle_items", shared.DESCRIPTION, {"items": shared.ITEMS}, Found),
        _tool("explain_bundle", _WHY, {"items": shared.ITEMS, "item_ids": _IDS}, Explained),
    ]

    async def list_tools(
        _: _Context, __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(_: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        if (tool := tools.get(params.name)) is None:
            raise MCPError(types.INVALID_PARAMS, f"no such tool: there is {', '.join(tools)}")
        try:
            return await tool(**params.arguments or {})
        except RouteDKError as error:
            return _result(shared.mistake(error), error=True)
        except Exception:
            logger.exception("a tool failed")
            return _result("The server failed: its log says why.", error=True)

    async def list_resources(
        _: _Context, __: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        about = "What this program is, what it was trained on, and its limits."
        one = types.Resource(uri=CARD, name="card", description=about, mime_type=_MARKDOWN)
        return types.ListResourcesResult(resources=[one])

    async def read_resource(
        _: _Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        if str(params.uri) != CARD:
            raise MCPError(types.INVALID_PARAMS, f"no such resource: there is {CARD}")
        from routedk.adapters.export.program_card import program_card

        text = types.TextResourceContents(
            uri=CARD, mime_type=_MARKDOWN, text=program_card(await loaded())
        )
        return types.ReadResourceResult(contents=[text])

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


def _tool(name: str, about: str, arguments: dict[str, Any], result: type[BaseModel]) -> types.Tool:
    return types.Tool(
        name=name,
        description=about,
        input_schema={
            "type": "object",
            "properties": arguments,
            "required": [*arguments],
            "additionalProperties": False,
        },
        output_schema=result.model_json_schema(),
        annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


def _result(text: str, value: Any = None, *, error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        structured_content=value,
        is_error=error,
    )


class HttpTools:
    """Tools over streamable HTTP, each request by itself: no state is kept between them.

    Args:
        server: Has the tools.
        max_body: Most bytes of a request.
        room: Holds a request's room in the queue.
    """

    def __init__(
        self,
        server: Server[Any],
        max_body: int,
        room: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        self.manager = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, max_request_body_size=max_body
        )
        self.room = room

    async def respond(self) -> Response:
        """A response that the library makes of the request."""
        return _Handled(self)


class _Handled(Response):
    def __init__(self, tools: HttpTools) -> None:
        super().__init__()
        self.tools = tools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.tools.room(1):
            await self.tools.manager.handle_request(scope, receive, send)
