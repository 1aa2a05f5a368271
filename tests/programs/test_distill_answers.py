"""Distilling without gold: an LM teacher's answers, their plan, and their requests."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from routedk.errors import DataError, SettingError
from routedk.files import read_json, read_jsonl, write_jsonl_records
from routedk.programs.distill import DistillConfig, distill, distill_artifact
from routedk.programs.distill_plan import plan_distill, write_requests
from routedk.types import Session
from tests.scripted import scripted_lm

Make = Callable[..., Session]


@pytest.fixture
def sessions(make: Make) -> list[Session]:
    """Twenty sessions with gold, and one that nobody annotated."""
    gold = [((1, 2), "tea")]
    annotated = [make(f"s{n}", [f"kettle {n}", f"cup {n}", f"sock {n}"], gold) for n in range(20)]
    return [*annotated, make("blind", ["a", "b"])]


def report_of(folder: Path) -> Any:
    return read_json(folder / "report.json")


@pytest.fixture
def blind(make: Make) -> list[Session]:
    """Ten sessions that nobody annotated."""
    return [make(f"s{n}", [f"kettle {n}", f"cup {n}", f"sock {n}"]) for n in range(10)]


def stating(messages: list[dict[str, str]]) -> str:
    """A teacher who cannot answer session 7, and sees an item too many in session 3."""
    seen = messages[-1]["content"]
    if "Most rules" in seen:
        return "Kettles belong with cups.\nSocks belong with nothing here."
    if "kettle 7" in seen:
        return "What a nice kettle."
    numbers = [1, 2, 9] if "kettle 3" in seen else [1, 2]
    bundle = {"items": numbers, "intent": "tea", "kind": "complements", "why": "Brews tea."}
    intents = {"1": "tea", "2": "tea", "3": "clothing"}
    return json.dumps({"item_intents": intents, "bundles": [bundle]})


def test_an_lm_teacher_needs_no_gold(blind: list[Session], tmp_path: Path) -> None:
    lm, engine = scripted_lm(stating)
    artifact = distill_artifact(blind, lm=lm, store=tmp_path)
    made = distill(blind, lm=lm, store=tmp_path)
    told = report_of(artifact.folder)
    assert told["counts"] == {
        "sessions": 10,
        "patterns": 0,
        "rules": 2,
        "thoughts": 9,
        "answers": 9,
    }
    (missing,) = told["quarantined"]
    assert (missing["session_id"], missing["step"]) == ("s7", "answer")
    assert told["dropped"] == [{"session_id": "s3", "dropped": "no such item: 9"}]
    assert told["spent"]["calls"] == len(engine.requests) == 11
    answer = made.answers[0]
    assert (answer.session_id, answer.provenance.tokens) == ("s0", 2)
    assert len(answer.provenance.prompt_hash) == 16
    assert answer.item_intents == {"s0-1": "tea", "s0-2": "tea", "s0-3": "clothing"}
    assert made.thoughts[0].text == "1 tea; 2 tea; 3 none; why: Brews tea."
    assert made.thoughts[0].provenance.tokens == 0
    assert made.rules[0].provenance.sessions == tuple(a.session_id for a in made.answers)
    # Only what is named is made, and none of it is paid for again.
    config = DistillConfig(formats=("answer",), ratio=0.5)
    assert {type(p).__name__ for p in distill(blind, config, lm=lm, store=tmp_path).pieces} == {
        "TeacherAnswer"
    }
    assert len(engine.requests) == 11


def test_a_teacher_answers_annotated_sessions_without_their_gold(
    sessions: list[Session], tmp_path: Path
) -> None:
    lm, engine = scripted_lm(stating)
    config = DistillConfig(formats=("answer",), threads=1)
    made = distill(sessions, config, lm=lm, store=tmp_path)
    assert {a.session_id for a in made.answers} == {s.id for s in sessions} - {"s7"}
    items = "Items:\n1 kettle 0\n2 cup 0\n3 sock 0\n\nJSON:"
    assert engine.requests[0][-1]["content"] == items


def test_a_budget_ends_answering_too(blind: list[Session], tmp_path: Path) -> None:
    lm, engine = scripted_lm(stating)
    config = DistillConfig(max_tokens=1)
    told = report_of(
        distill_artifact(blind, config, lm=lm.copy(max_tokens=5), store=tmp_path).folder
    )
    assert (told["counts"]["answers"], engine.requests) == (0, [])
    assert "raise max_tokens and run again" in told["stopped"]


def test_a_plan_counts_answers(blind: list[Session]) -> None:
    steps = plan_distill(blind, DistillConfig(teacher="openai/gpt-4o-mini", ratio=0.5))
    assert {name: tally.calls for name, tally in steps.items()} == {
        "state bundles": 5,
        "state rules": 1,
    }
    path = Path("answers.jsonl")
    assert plan_distill(blind, DistillConfig(answers=(path,))) == {}


def test_requests_of_a_batch_are_the_teachers_own_and_their_results_are_read(
    sessions: list[Session], tmp_path: Path
) -> None:
    lm, engine = scripted_lm(stating)
    config = DistillConfig(formats=("answer",), threads=1, ratio=0.5)
    asked = distill(sessions, config, lm=lm, store=tmp_path)
    named = DistillConfig(teacher="openai/gpt-4o-mini", ratio=0.5)
    assert write_requests(sessions, tmp_path / "requests.jsonl", named) == len(engine.requests)
    requests = [record for _, record in read_jsonl(tmp_path / "requests.jsonl")]
    assert [one["body"]["messages"] for one in requests] == engine.requests
    assert {(one["method"], one["url"]) for one in requests} == {("POST", "/v1/chat/completions")}
    assert requests[0]["body"]["model"] == "gpt-4o-mini"
    assert requests[0]["body"]["temperature"] == 0.0

    def result(request: Any) -> dict[str, Any]:
        content = stating(request["body"]["messages"])
        body = {"choices": [{"message": {"content": content}}], "model": "gpt-4o-mini-2024"}
        return {"custom_id": request["custom_id"], "response": {"body": body}}

    write_jsonl_records(tmp_path / "results.jsonl", map(result, requests))
    config = replace(config, answers=(tmp_path / "results.jsonl",))
    read = distill(sessions, config, store=tmp_path)
    assert [(a.session_id, a.bundles, a.item_intents) for a in read.answers] == [
        (a.session_id, a.bundles, a.item_intents) for a in asked.answers
    ]
    assert read.answers[0].provenance.teacher == "gpt-4o-mini-2024"


def test_answers_need_a_teacher(
    sessions: list[Session], blind: list[Session], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="with --teacher, or recorded answers with --answers"):
        distill(blind, store=tmp_path)
    with pytest.raises(SettingError, match="the annotation teacher states no bundles of its own"):
        distill(sessions, DistillConfig(formats=("answer",)), store=tmp_path)
    with pytest.raises(SettingError, match="requests are for a language model"):
        write_requests(blind, tmp_path / "requests.jsonl")
    lm, _ = scripted_lm(stating)
    config = DistillConfig(answers=(tmp_path / "a.jsonl",))
    with pytest.raises(SettingError, match="give one of the two"):
        distill(blind, config, lm=lm, store=tmp_path)
    config = DistillConfig(strategy="difficulty", ratio=0.5)
    with pytest.raises(SettingError, match="not every session is annotated: give a file of sc"):
        distill(blind, config, lm=lm, store=tmp_path)
    with pytest.raises(DataError, match="there is no session to distill from"):
        distill([], lm=lm, store=tmp_path)


def test_the_report_names_who_answered(blind: list[Session], tmp_path: Path) -> None:
    ids = [item.id for item in blind[0].items]
    bundles = [{"items": ids[:2], "intent": "tea"}]
    lines = [
        {"session_id": "s0", "bundles": bundles, "teacher": "Ann"},
        {"session_id": "s1", "bundles": [], "teacher": "Bea"},
        {"text": "Kettles go with cups.", "sessions": ["s0"], "teacher": "Ann"},
    ]
    write_jsonl_records(tmp_path / "a.jsonl", lines)
    config = DistillConfig(answers=(tmp_path / "a.jsonl",))
    made = distill_artifact(blind, config, store=tmp_path / "store")
    assert report_of(made.folder)["teacher"] == {"model": "Ann + Bea", "address": ""}
