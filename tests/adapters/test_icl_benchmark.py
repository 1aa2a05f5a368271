"""`benchmarks.icl`, on the tiny student."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
import typer
from typer.testing import CliRunner, Result

from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.data.knowledge_file import write_knowledge
from routedk.eval import matched_f1
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, Thought

Run = Callable[..., Result]
LIMIT = 2
THREE = ("0 neighbours, none", "1 neighbour, all", "AICL, 1 neighbour")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import icl

    return icl


@pytest.fixture
def knowledge_file(tmp_path: Path) -> Path:
    origin = Provenance(teacher="test")
    training = split_sessions(load_sessions("demo", DataOptions()), DataOptions())["train"]
    base = KnowledgeBase(
        patterns=(
            Pattern(
                categories=("Kettles", "Mugs"),
                support=0.1,
                confidence=0.5,
                lift=2.0,
                provenance=origin,
            ),
        ),
        rules=(Rule(text="Cups go with kettles", provenance=origin),),
        thoughts=tuple(
            Thought(session_id=session.id, text="1 tea; 2 tea", provenance=origin)
            for session in training
        ),
    )
    write_knowledge(base, tmp_path / "knowledge.jsonl")
    return tmp_path / "knowledge.jsonl"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[None]:
    before = dspy.cache
    dspy.configure_cache(disk_cache_dir=str(tmp_path / "cache"))
    yield
    dspy.cache = before


@pytest.fixture
def run(benchmark: Any, knowledge_file: Path, student_folder: Path, cache: None) -> Run:
    app = typer.Typer()
    app.command()(benchmark.main)

    def invoke(output: Path, *options: str) -> Result:
        given = ["--data", "demo", "--knowledge", str(knowledge_file), "--output", str(output)]
        chosen = ["--limit", str(LIMIT), "--student", str(student_folder), *options]
        return CliRunner().invoke(app, [*given, *chosen])

    return invoke


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_condition_by_its_name(benchmark: Any) -> None:
    found = benchmark.conditions(KnowledgeBase(), (), (0, 1, 3), "tfidf", None)
    formats = ["none", "patterns", "rules", "thoughts", "all"]
    assert [condition.name for condition in found] == [
        *(f"0 neighbours, {name}" for name in formats if name != "thoughts"),
        *(f"1 neighbour, {name}" for name in formats),
        *(f"3 neighbours, {name}" for name in formats),
        "AICL, 1 neighbour",
    ]


def test_scores_costs_and_differences_are_those_of_the_answers(run: Run, tmp_path: Path) -> None:
    shown = run(tmp_path / "icl.json", *(part for name in THREE for part in ("--only", name)))
    assert shown.exit_code == 0, shown.output
    record = read(tmp_path / "icl.json")
    made = record["conditions"]
    assert tuple(made) == THREE
    assert all(name in shown.output for name in THREE)
    by_id = {session.id: session for session in load_sessions("demo", DataOptions())}
    scores: dict[str, list[float]] = {}
    for name, condition in made.items():
        scores[name] = [
            matched_f1(
                by_id[kept["session_id"]].gold,
                [frozenset(bundle["items"]) for bundle in kept["bundles"]],
            )
            for kept in condition["predictions"]
        ]
        cost = condition["cost"]
        f1 = condition["results"]["matched"]["f1"]["value"]
        assert len(scores[name]) == LIMIT
        assert math.isclose(f1, sum(scores[name]) / LIMIT)
        assert condition["unparsable"] == 0
        assert cost["unmetered_calls"] == 0
        assert cost["seconds_per_session"] > 0
        assert cost["output_tokens_per_session"] > 0
        assert set(condition["results"]) == {"matched", "strict", "aicl"}
        if name != "AICL, 1 neighbour":
            assert cost["calls_per_session"] == 1
    base, informed = made[THREE[0]], made[THREE[1]]
    assert "difference" not in base
    assert math.isclose(
        informed["difference"]["f1"]["value"],
        informed["results"]["matched"]["f1"]["value"] - base["results"]["matched"]["f1"]["value"],
        abs_tol=1e-12,
    )
    # Each sees what the one before it sees, and more.
    tokens = [made[name]["cost"]["input_tokens_per_session"] for name in THREE]
    assert tokens == sorted(set(tokens))
    assert made["AICL, 1 neighbour"]["cost"]["calls_per_session"] > 2
