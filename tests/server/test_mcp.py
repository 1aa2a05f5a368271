"""An agent's tools over the Model Context Protocol, asked by the SDK's own client."""

import json
from pathlib import Path
from typing import Any

import dspy
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult

from routedk.adapters.export.program_card import program_card
from routedk.programs.generator import BundleGenerator
from routedk.programs.tool import bundle_tool, read_items
from routedk.programs.why import explain
from routedk.server.mcp import make_mcp
from tests.scripted import scripted_lm

from .conftest import GatedEngine
from .tools import CART, MODES, asked, calling, served, text


def test_the_tool_is_typed_and_told(program: BundleGenerator) -> None:
    tool, other = asked(Client(served(program)), lambda client: client.list_tools()).tools
    mine = bundle_tool(program)
    assert tool.description == mine.desc
    assert "the intent that ties its items" in tool.description
    assert tool.input_schema["properties"] == {"items": {**mine.args["items"], "title": "Items"}}
    assert tool.input_schema["required"] == ["items"]
    assert tool.output_schema["properties"]["bundles"]["type"] == "array"
    assert other.input_schema["properties"]["items"] == tool.input_schema["properties"]["items"]
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
        {"items": []},
        {"items": "red kettle"},
        {"items": [*CART, {"id": 7, "title": "hub"}]},
        {"items": [CART[0], {"id": "x" * 5000}]},
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
        ({"item_ids": None}, "item_ids must be a list of at least two ids"),
        ({"item_ids": ["7"]}, "item_ids must be a list of at least two ids"),
        ({"item_ids": "7 b"}, "item_ids must be a list of at least two ids"),
        ({"item_ids": ["7", "b"]}, "session 'items' has no item 'b'"),
        ({"item_ids": [7, "7"]}, "a bundle names an item twice: ['7', '7']"),
        ({"item_ids": [7, "#2"], "items": []}, "items must be a list of at least one item"),
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
        assert (await client.call_tool("bundle", {})).is_error
        lacking = await client.call_tool("bundle_items", {})
        assert lacking.is_error
        assert "items" in text(lacking)
        with pytest.raises(MCPError, match="routedk://other"):
            await client.read_resource("routedk://other")

    asked(Client(served(program)), talk)


@MODES
def test_a_failure_tells_nothing(mode: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def loaded() -> BundleGenerator:
        raise RuntimeError("a secret")

    found = asked(Client(make_mcp(loaded, 9), mode=mode), calling(items=CART))
    assert found.is_error
    assert text(found) == "Error executing tool bundle_items"
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


@pytest.mark.parametrize(
    ("encoder", "shown"),
    [
        ("minilm", "encoder minilm"),
        ("org/small-encoder", "encoder org/small-encoder"),
        ("/home/ann/encoder", "encoder encoder"),
        ("FOLDER", "encoder mine"),
    ],
)
def test_the_card_shows_no_folder(
    program: BundleGenerator, tmp_path: Path, encoder: str, shown: str
) -> None:
    (tmp_path / "mine").mkdir()
    encoder = encoder.replace("FOLDER", str(tmp_path / "mine"))
    program.grouping = program.groups_by()
    program.grouping.record = {"encoder": encoder}  # type: ignore[union-attr]
    assert f"| grouping | fingerprint pairs, {shown} |" in program_card(program)


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
