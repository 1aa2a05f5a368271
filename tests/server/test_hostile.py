"""Two thousand hostile titles through the server, the tools and the command line: they are data."""

import asyncio
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from routedk.adapters.answering import GenerateConfig, resolve_program
from routedk.programs.generator import BundleGenerator
from routedk.programs.tool import bundle_tool
from routedk.server.mcp import make_mcp
from tests.cli.conftest import Run, run
from tests.hostile import hostile_titles
from tests.scripted import ScriptedEngine, scripted_lm

from .conftest import Pairs, Start

__all__ = ["run"]

ITEMS = 10
TITLES = hostile_titles()
RECORDS = [
    {
        "session_id": f"{number} {TITLES[number]}",
        "items": [
            {"id": f"{title} id", "title": title} for title in TITLES[number : number + ITEMS]
        ],
    }
    for number in range(0, len(TITLES), ITEMS)
]
ROLE = re.compile(r"\b(system|user|assistant|human|developer|tool)\s*[:：]", re.IGNORECASE)


@pytest.fixture
def asked() -> Iterator[tuple[BundleGenerator, ScriptedEngine]]:
    """A program whose language model repeats titles, as they came and as it reads them."""
    turns = iter(range(10**6))

    def script(messages: list[dict[str, str]]) -> str:
        number = next(turns)
        return TITLES[number % len(TITLES)] if number % 2 else messages[-1]["content"]

    lm, engine = scripted_lm(script)
    program = resolve_program(GenerateConfig(), lm=lm)
    program.grouping = Pairs()
    yield program, engine
    assert engine.requests
    for messages in engine.requests:
        first, second = messages[-1]["content"].split("\n")
        assert harmless(first)
        assert harmless(second)


def harmless(text: str) -> bool:
    """Whether a terminal, a page and a chat template read a text as nothing but text."""
    return text.isprintable() and not set(text) & set("<>|[]{}") and not ROLE.search(text)


def check(bundles: list[dict[str, Any]]) -> None:
    assert bundles
    for bundle in bundles:
        assert bundle["intent"]
        assert harmless(bundle["intent"])
        assert len(bundle["intent"].split()) <= 12


def test_the_generator_has_all_kinds() -> None:
    assert len(set(TITLES)) == len(TITLES) == 2000
    assert hostile_titles(7) == TITLES[:7]
    for part in ("<script>", "\x1b[", "\x9b", "\x00", "<|im_start|>", "system:", "\u202e", "{{"):
        assert sum(part in title for title in TITLES) > 20


def test_through_the_server(start: Start, asked: tuple[BundleGenerator, ScriptedEngine]) -> None:
    program, engine = asked
    client = start(program=program)
    for first in range(0, len(RECORDS), 50):
        sent = RECORDS[first : first + 50]
        found = client.post("/v1/bundles", json={"sessions": sent})
        assert found.status_code == 200
        assert found.headers["content-type"] == "application/json"
        assert min(found.content) >= ord(" ")
        for record, answer in zip(sent, found.json()["answers"], strict=True):
            assert answer["session_id"] == record["session_id"]
            ids = [name for bundle in answer["bundles"] for name in bundle["items"]]
            assert ids == [item["id"] for item in record["items"]]
            check(answer["bundles"])
    assert len(engine.requests) == len(TITLES) // 2


def test_through_the_tools(asked: tuple[BundleGenerator, ScriptedEngine]) -> None:
    program, engine = asked

    async def loaded() -> BundleGenerator:
        return program

    async def talk() -> None:
        async with Client(make_mcp(loaded, ITEMS)) as client:
            for record in RECORDS:
                items = record["items"]
                found = await client.call_tool("bundle_items", {"items": items})
                bundles = found.structured_content["bundles"]
                told = [item for bundle in bundles for item in bundle["items"]]
                assert [item["id"] for item in told] == [item["id"] for item in items]
                # Entities are read, as those of a catalogue are.
                titles = [html.unescape(item["title"]) for item in items]
                assert [item["title"] for item in told] == titles
                check(bundles)
                (content,) = found.content
                assert content.text.isprintable()
                assert json.loads(content.text) == bundles
            for record in RECORDS[::20]:
                ids = [item["id"] for item in record["items"][:2]]
                given = {"items": record["items"], "item_ids": ids}
                found = await client.call_tool("explain_bundle", given)
                assert harmless(found.structured_content["sentence"])
                assert [item["id"] for item in found.structured_content["ties"]] == ids
                given["items"] = [*record["items"], record["items"][0]][-ITEMS:]
                bad = await client.call_tool("explain_bundle", given)
                assert bad.content[0].text.isprintable()

    asyncio.run(talk())
    assert len(engine.requests) > len(TITLES) // 2


def test_mistakes_quote_no_raw_text() -> None:
    tool = bundle_tool(BundleGenerator())
    for title in TITLES[:100]:
        twice = [{"id": title, "title": "cup"}] * 2
        for told in (tool(items=twice), tool(items=twice, **{title: 1})):
            assert told.isprintable()
            assert len(told) <= 300


def test_on_a_terminal(
    run: Run,
    asked: tuple[BundleGenerator, ScriptedEngine],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    program, _ = asked
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("routedk.adapters.answering.resolve_program", lambda *_, **__: program)
    path = tmp_path / "hostile.jsonl"
    few, unread = RECORDS[::4], {"session_id": TITLES[28], "items": []}
    path.write_text("\n".join(map(json.dumps, [*few, unread])), encoding="utf-8")
    code, out, err = run("generate", "--data", path)
    assert code == 0
    lines = out.split("\n")
    assert all(line.isprintable() for line in [*lines, *err.split("\n")])
    answers = [json.loads(line) for line in lines if line]
    assert [answer["session_id"] for answer in answers[:-1]] == [r["session_id"] for r in few]
    assert "1 of 51, first" in err
    for command in (["data", "describe", path], ["data", "describe", path, "--json"]):
        _, out, err = run(*command)
        assert (out + err).replace("\n", "").isprintable()
