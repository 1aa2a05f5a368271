import json
from pathlib import Path

import pytest

from routedk.data.knowledge_file import read_knowledge, sources_of, write_knowledge
from routedk.errors import DataError
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, Thought

MADE = Provenance(teacher="annotation", sessions=("s1", "s2"), tokens=3, cost=0.5)
KNOWLEDGE = KnowledgeBase(
    patterns=(
        Pattern(categories=("a", "b"), support=0.5, confidence=1.0, lift=2.0, provenance=MADE),
    ),
    rules=(Rule(text="a\n é", provenance=MADE),),
    thoughts=(Thought(session_id="s1", text="because", provenance=MADE),),
)


def test_written_and_read(tmp_path: Path) -> None:
    write_knowledge(KNOWLEDGE, tmp_path / "deep" / "knowledge.jsonl")
    assert read_knowledge(tmp_path / "deep" / "knowledge.jsonl") == KNOWLEDGE
    lines = (tmp_path / "deep" / "knowledge.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["pattern", "rule", "thought"]


def test_sources() -> None:
    assert sources_of(KNOWLEDGE) == {"s1", "s2"}


GOOD = {"kind": "rule", "text": "x", "provenance": {"teacher": "t"}}
THOUGHT = {"kind": "thought", "session_id": "s", "text": "x", "provenance": {"teacher": "t"}}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "invalid JSON"),
        ("[]", "expected a JSON object"),
        ({"text": "x"}, "kind is None .allowed are pattern, rule, thought."),
        ({**GOOD, "kind": "tip"}, "kind is 'tip'"),
        ({"kind": "rule", "text": "x"}, "rule: provenance: Field required"),
        ({**GOOD, "text": ""}, "rule: text: String should have at least 1 character, found ''"),
        ({**GOOD, "provenance": {"teacher": "t", "cost": -1}}, r"rule: provenance\.cost"),
        (
            {
                "kind": "pattern",
                "categories": ["a", "b"],
                "support": 2,
                "confidence": 1,
                "lift": 1,
                "provenance": {"teacher": "t"},
            },
            "pattern: support",
        ),
        (THOUGHT, "session 's' has its thought already"),
    ],
)
def test_a_broken_line_is_named(bad: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "knowledge.jsonl"
    line = bad if isinstance(bad, str) else json.dumps(bad)
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(THOUGHT)}\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_knowledge(path)
    assert f"{path}:3: " in str(caught.value)


@pytest.mark.parametrize("cost", ["1e308", '"Infinity"', "-1"])
def test_a_cost_that_no_sum_can_hold_is_refused(tmp_path: Path, cost: str) -> None:
    path = tmp_path / "k.jsonl"
    source = f'{{"teacher": "t", "cost": {cost}}}'
    path.write_text(f'{{"kind": "rule", "text": "a", "provenance": {source}}}')
    with pytest.raises(DataError, match=r"k\.jsonl:1: rule: provenance\.cost"):
        read_knowledge(path)


@pytest.mark.parametrize("price", ['"nan"', '"inf"', "-1e999"])
def test_a_price_that_json_cannot_hold_is_refused(tmp_path: Path, price: str) -> None:
    path = tmp_path / "k.jsonl"
    items = f'[{{"id": "a", "title": "Kettle", "price": {price}}}]'
    path.write_text(
        '{"kind": "answer", "session_id": "s", "bundles": [], "item_intents": {}, '
        f'"items": {items}, "provenance": {{"teacher": "t"}}}}'
    )
    with pytest.raises(DataError, match=r"k\.jsonl:1: "):
        read_knowledge(path)
