import json
from typing import Any

import dspy
import pytest

from routedk.programs.generator import BundleGenerator
from routedk.programs.tool import bundle_tool
from tests.scripted import ScriptedEngine, scripted_lm

CART = [
    {"id": 7, "title": "red kettle", "price": 19.99, "categories": ["Kitchen", "Kettles"]},
    {"id": "b", "title": "tea cup", "price": "19,99 EUR", "categories": "Kitchen"},
    {"title": "usb cable", "price": None, "colour": "black"},
]
TEA = {
    "items": [{"id": "7", "title": "red kettle"}, {"id": "b", "title": "tea cup"}],
    "intent": "tea",
}


def tool_answering(answer: str) -> tuple[dspy.Tool, ScriptedEngine]:
    lm, engine = scripted_lm(lambda messages: answer)
    program = BundleGenerator()
    program.set_lm(lm)
    return bundle_tool(program), engine


def test_what_shops_have_goes_in_and_bundles_come_out() -> None:
    tool, engine = tool_answering("1 2 | tea")
    assert tool(items=CART) == [TEA]
    assert tool(items=json.dumps(CART)) == [TEA]
    assert engine.requests[0][-1]["content"] == "1 red kettle\n2 tea cup\n3 usb cable"
    titles = ["red kettle", "tea cup"]
    assert tool(items=titles)[0]["items"] == [
        {"id": "#1", "title": "red kettle"},
        {"id": "#2", "title": "tea cup"},
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "items must be a list of at least one item"),
        ({"items": []}, "items must be a list of at least one item"),
        ({"items": {"title": "red kettle"}}, "items must be a list of at least one item"),
        ({"items": "red kettle"}, "items must be a list of at least one item"),
        ({"items": [*CART, {"id": 7, "title": "hub"}]}, "items 1 and 4 have the same id '7'"),
        ({"items": [CART[0], {"id": "x"}]}, "item 2 has no title: give every item a title"),
        ({"items": [CART[0], {"title": " "}]}, "item 2 has no title"),
        ({"items": [CART[0], 5]}, "item 2 has no title"),
        ({"items": [{"title": "x", "id": [1]}, "y", {"title": "z", "id": [1]}]}, "items 1 and 3"),
        ({"cart": CART}, "There is no argument cart: leave it out."),
    ],
)
def test_mistakes_are_answered_in_a_sentence(arguments: dict[str, Any], told: str) -> None:
    tool, engine = tool_answering("1 2 | tea")
    assert told in tool(**arguments)
    assert engine.requests == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("none", "No items belong together."),
        ("<think>Perhaps", "The items could not be bundled: the answer ends inside its reasoning"),
    ],
)
def test_no_bundles_are_told_in_a_sentence(answer: str, told: str) -> None:
    tool, _ = tool_answering(answer)
    assert tool(items=CART).startswith(told)


def test_an_agent_learns_from_its_mistake() -> None:
    """Another model is the agent; it calls the tool with a wrong list, then with a right one."""
    tool, _ = tool_answering("1 2 | tea")
    calls = iter([[*CART, CART[0]], CART])

    def agent(messages: list[dict[str, str]]) -> str:
        if "Respond with the corresponding output fields, starting with the field `[[ ## reaso" in (
            asked := messages[-1]["content"]
        ):
            return "[[ ## reasoning ## ]]\nSeen.\n\n[[ ## answer ## ]]\nkettle and cup"
        items = next(calls, None)
        name, arguments = ("finish", {}) if items is None else ("bundle_items", {"items": items})
        if items is CART:
            assert "items 1 and 4 have the same id" in asked
        return (
            f"[[ ## next_thought ## ]]\nBundle.\n\n[[ ## next_tool_name ## ]]\n{name}\n\n"
            f"[[ ## next_tool_args ## ]]\n{json.dumps(arguments)}\n\n[[ ## completed ## ]]"
        )

    lm, engine = scripted_lm(agent)
    with dspy.context(lm=lm):
        found = dspy.ReAct("cart, question -> answer", tools=[tool])(
            cart=json.dumps(CART), question="What goes together?"
        )
    assert found.answer == "kettle and cup"
    assert "have the same id" in found.trajectory["observation_0"]
    assert found.trajectory["observation_1"] == [TEA]
    assert "Group a shopper's items into bundles" in engine.requests[0][0]["content"]
    assert "'price': {'type': ['number', 'string']}" in engine.requests[0][0]["content"]
