"""The verb: its artifact, its journal, its plan, and what it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMAuthError

from routedk.data.knowledge_file import sources_of
from routedk.errors import DataError, SettingError
from routedk.files import read_json
from routedk.programs.distill import DistillConfig, distill, distill_artifact
from routedk.programs.distill_plan import plan_distill
from routedk.programs.journal.budget import BudgetError
from routedk.programs.sampling.difficulty import write_scores
from routedk.programs.teachers.named_lm import check_key
from routedk.types import Session
from tests.scripted import scripted_lm

from .journal.wire import FaultyServer, Reply

pytestmark = pytest.mark.usefixtures("litellm_loop")

Make = Callable[..., Session]
QUIET = DistillConfig(formats=("pattern", "thought"))


@pytest.fixture
def sessions(make: Make) -> list[Session]:
    """Twenty sessions, whose gold alternates, and one that nobody annotated."""
    words = ("kettle", "cup", "sock")
    gold = [((1, 2), "tea"), ((2, 3), "tea")]
    annotated = [make(f"s{n}", [f"{w} {n}" for w in words], [gold[n % 2]]) for n in range(20)]
    return [*annotated, make("blind", ["a", "b"])]


def report_of(folder: Path) -> Any:
    return read_json(folder / "report.json")


def thinking(messages: list[dict[str, str]]) -> str:
    """A script that is right for the even sessions."""
    return "1 x; 2 x; 3 y"


def test_the_annotation_teacher_needs_nothing_and_works_once(
    sessions: list[Session], tmp_path: Path
) -> None:
    artifact = distill_artifact(sessions, QUIET, store=tmp_path)
    knowledge = distill(sessions, QUIET, store=tmp_path)
    assert [t.session_id for t in knowledge.thoughts] == [s.id for s in sessions[:-1]]
    assert sources_of(knowledge) <= {session.id for session in sessions[:-1]}
    assert distill_artifact(sessions, QUIET, store=tmp_path) == replace(artifact, reused=True)
    told = report_of(artifact.folder)
    assert told["teacher"]["model"] == "annotation"
    assert told["counts"] == {
        "sessions": 20,
        "patterns": 0,
        "rules": 0,
        "thoughts": 20,
        "answers": 0,
    }
    assert told["config"]["formats"] == ["pattern", "thought"]
    # How it is made is no other knowledge; what is made of, is.
    assert distill_artifact(sessions, replace(QUIET, threads=1), store=tmp_path).reused
    for other in (replace(QUIET, min_support=0.5), replace(QUIET, ratio=0.5, seed=1)):
        assert not distill_artifact(sessions, other, store=tmp_path).reused
    assert not distill_artifact(sessions[1:], QUIET, store=tmp_path).reused


def test_smaller_samples_are_inside_larger_ones(sessions: list[Session], tmp_path: Path) -> None:
    def taken(ratio: float) -> set[str]:
        config = replace(QUIET, strategy="length", ratio=ratio)
        artifact = distill_artifact(sessions, config, store=tmp_path)
        return set(report_of(artifact.folder)["sessions"])

    assert len(taken(0.1)) == 2
    assert taken(0.1) < taken(0.4)


def test_difficulty_by_scores_of_a_file(sessions: list[Session], tmp_path: Path) -> None:
    hard = ["s3", "s8", "s13"]
    scores = {s.id: 0.1 if s.id in hard else 0.9 for s in sessions[:-1]}
    write_scores(tmp_path / "scores.jsonl", scores)
    config = replace(QUIET, strategy="difficulty", ratio=0.15, scores=tmp_path / "scores.jsonl")
    artifact = distill_artifact(sessions, config, store=tmp_path)
    assert report_of(artifact.folder)["sessions"] == hard
    write_scores(tmp_path / "scores.jsonl", {**scores, "s3": 1.0})
    artifact = distill_artifact(sessions, config, store=tmp_path)
    assert "s3" not in report_of(artifact.folder)["sessions"]


def test_difficulty_is_told_by_the_lm_teacher_and_paid_for_once(
    sessions: list[Session], tmp_path: Path
) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2 | tea")
    config = DistillConfig(formats=("rule",), strategy="difficulty", ratio=0.5)
    artifact = distill_artifact(sessions, config, lm=lm, store=tmp_path)
    told = report_of(artifact.folder)
    # The odd ones, whose gold the one answer is not.
    assert told["sessions"] == [f"s{n}" for n in range(1, 20, 2)]
    # The answers that told what is difficult are the ones whose mistakes are looked at.
    assert told["spent"]["calls"] == len(engine.requests)


def test_an_lm_takes_the_teachers_place(sessions: list[Session], tmp_path: Path) -> None:
    lm, engine = scripted_lm(thinking)
    steps: list[tuple[str, int, int]] = []
    artifact = distill_artifact(
        sessions, QUIET, lm=lm, store=tmp_path, on_step=lambda *step: steps.append(step)
    )
    told = report_of(artifact.folder)
    assert (told["teacher"]["model"], told["counts"]["thoughts"]) == ("local/scripted", 10)
    dropped = {one["session_id"] for one in told["quarantined"]}
    assert dropped == {f"s{n}" for n in range(1, 20, 2)}
    assert told["spent"] == {
        "calls": 30,
        "input_tokens": 30,
        "output_tokens": 30,
        "cost": None,
    }
    assert sorted(steps) == [("thought", n, 20) for n in range(1, 21)]
    assert distill_artifact(sessions, QUIET, lm=lm, store=tmp_path).reused
    # Another knowledge of the same questions costs nothing.
    other = replace(QUIET, formats=("thought",))
    told = report_of(distill_artifact(sessions, other, lm=lm, store=tmp_path).folder)
    assert (told["spent"]["calls"], len(engine.requests)) == (0, 30)


def test_a_budget_counts_what_this_run_spent_and_a_higher_one_continues(
    sessions: list[Session], tmp_path: Path
) -> None:
    lm, engine = scripted_lm(thinking)
    lm = lm.copy(max_tokens=50)
    even = sessions[:20:2]

    def run(max_tokens: int | None) -> Any:
        config = replace(QUIET, max_tokens=max_tokens, threads=1)
        return report_of(distill_artifact(even, config, lm=lm, store=tmp_path).folder)

    told = run(1)
    assert (told["counts"]["thoughts"], engine.requests) == (0, [])
    assert "0 tokens (0.0000 dollars) are spent" in told["stopped"]
    assert "raise max_tokens and run again" in told["stopped"]
    assert run(10_000)["stopped"] == ""
    # The run has spent 20 tokens, and what it paid for stays within reach of a lower budget.
    told = run(2)
    assert (told["counts"]["thoughts"], told["spent"]["calls"]) == (10, 10)
    assert len(engine.requests) == 10


def test_an_interrupted_run_resumes_and_its_spending_counts(
    sessions: list[Session], tmp_path: Path
) -> None:
    asked: list[str] = []
    config = replace(QUIET, threads=1, max_tokens=5000)

    def script(messages: list[dict[str, str]]) -> str:
        asked.append(messages[-1]["content"])
        if len(asked) == 4:
            raise KeyboardInterrupt
        return thinking(messages)

    lm, _ = scripted_lm(script)
    lm = lm.copy(max_tokens=50)
    with pytest.raises(KeyboardInterrupt):
        distill(sessions[:20:2], config, lm=lm, store=tmp_path)
    told = report_of(distill_artifact(sessions[:20:2], config, lm=lm, store=tmp_path).folder)
    assert told["spent"]["calls"] == 10
    # All but the one that was cut short were asked once.
    assert len(asked) == 11


def test_one_journal_for_each_model_and_address(sessions: list[Session], tmp_path: Path) -> None:
    lm, _ = scripted_lm(thinking)
    for one in (lm, lm.copy(temperature=0.5), lm.copy(model="local/other")):
        distill(sessions, QUIET, lm=one, store=tmp_path)
    names = sorted(path.name for path in (tmp_path / "journals").glob("*.jsonl"))
    assert [name[:-15] for name in names] == ["local-other", "local-scripted"]


def test_a_teacher_over_the_wire(
    sessions: list[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    even = sessions[:20:2]
    with FaultyServer(lambda question: "1 x; 2 x; 3 y").running() as server:
        server.faults = ["drop", Reply(200, '{"id": "x", "choi'), Reply(429, "", {})]
        config = replace(QUIET, teacher="openai/fake", api_base=server.address, threads=2)
        artifact = distill_artifact(even, config, store=tmp_path)
        told = report_of(artifact.folder)
        assert told["quarantined"] == []
        assert told["spent"]["calls"] == told["counts"]["thoughts"] == 10
        assert len(server.arrivals) == 13
        server.for_ever = Reply(401, json.dumps({"error": {"message": "no such key"}}))
        assert distill_artifact(even, config, store=tmp_path).reused
        with pytest.raises(LMAuthError, match="no such key"):
            distill(sessions, config, store=tmp_path)


def test_a_plan_asks_nothing(sessions: list[Session], caplog: pytest.LogCaptureFixture) -> None:
    config = DistillConfig(teacher="openai/gpt-4o-mini", ratio=0.25)
    steps = plan_distill(sessions, config)
    calls = {name: tally.calls for name, tally in steps.items()}
    assert calls == {"bundle": 5, "state causes": 5, "state rules": 1, "name intents": 10}
    assert all(tally.cost and tally.input_tokens > 50 for tally in steps.values())
    scored = plan_distill(sessions, replace(config, strategy="difficulty"))
    assert scored["bundle"].calls == 20
    unpriced = plan_distill(sessions, replace(config, teacher="hosted_vllm/x", formats=("rule",)))
    assert unpriced["bundle"].cost is None
    assert "name intents" not in unpriced
    assert plan_distill(sessions) == {}
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 9}, "max_tokens is for LM teachers: the annotation teacher calls none"),
        ({"api_base": "http://h"}, "api_base is for LM teachers"),
        (
            {"teacher": "nonsense"},
            "teacher: annotation, or a language model; 'nonsense' is no LiteLLM name of a model",
        ),
        (
            {"teacher": "hosted_vllm/x", "max_cost": 1.0},
            "the price of hosted_vllm/x is not known: limit it by max_tokens instead of max_cost",
        ),
        ({"strategy": "difficulty", "ratio": 0.5}, "strategy 'difficulty' needs scores: give a f"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    sessions: list[Session], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        distill(sessions, DistillConfig(**settings), store=tmp_path)


def test_a_missing_key_is_told_before_the_first_call(
    sessions: list[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingError, match="variable OPENAI_API_KEY is not set"):
        distill(sessions, DistillConfig(teacher="openai/gpt-4o-mini"), store=tmp_path)
    check_key("ollama_chat/llama3.1")


def test_nothing_to_distill_from(make: Make, tmp_path: Path) -> None:
    for blind in ([], [make("a", ["x", "y"])], [make("a", ["x", "y"], [])]):
        with pytest.raises(DataError, match=rf"none of {len(blind)} sessions has gold bundles"):
            distill(blind, store=tmp_path)


def test_scoring_beyond_the_budget_ends_the_run(sessions: list[Session], tmp_path: Path) -> None:
    lm, _ = scripted_lm(thinking)
    config = DistillConfig(strategy="difficulty", ratio=0.5, max_tokens=1)
    with pytest.raises(BudgetError, match="the budget max_tokens=1 leaves"):
        distill(sessions, config, lm=lm.copy(max_tokens=5), store=tmp_path)
    assert dspy.settings.lm is None


def test_the_same_in_every_process() -> None:
    """Nothing depends on how a process hashes texts."""
    code = (
        "from routedk.data import load_sessions\n"
        "from routedk.programs.distill import DistillConfig\n"
        "from routedk.programs.sampling.sampling import STRATEGIES, order_sessions\n"
        "from routedk.programs.teachers.annotation import annotation_knowledge\n"
        "pool = load_sessions('demo')[:40]\n"
        "scores = {s.id: len(s.items) / 10 for s in pool}\n"
        "for name in STRATEGIES:\n"
        "    print(*(s.id for s in order_sessions(pool, name, seed=1, scores=scores)))\n"
        "print(annotation_knowledge(pool, DistillConfig()))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert b"thoughts=" in found.pop()
