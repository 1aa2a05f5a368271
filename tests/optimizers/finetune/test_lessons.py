from typing import Any

import dspy
import pytest

from routedk.optimizers.finetune.lessons import (
    Accepted,
    accepted_answers,
    gold_answer,
    trace_lessons,
)
from routedk.optimizers.metric import as_examples, matched_f1_metric
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping import SimilarIntents
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import render_items
from routedk.programs.testing import scripted_lm
from routedk.types import Session

# The gold of every session is its first two items.
ANSWERS = ["1 2 | right", "1 2", "what?", "Thought: 1 tea ~ desk; 2 tea", "none", "2 1 | right"]


def program_over(sessions: list[Session], answers: list[str]) -> BundleGenerator:
    """Answers each session with the answer at its place, whatever else the prompt holds."""
    of = dict(zip(map(render_items, sessions), answers, strict=True))
    lm, _ = scripted_lm(lambda messages: of[messages[-1]["content"]])
    program = BundleGenerator()
    program.set_lm(lm)
    return program


def accept(program: BundleGenerator, sessions: list[Session], least: float) -> list[Accepted]:
    examples = as_examples(sessions)
    return accepted_answers(program, examples, matched_f1_metric, least, num_threads=2)


def test_the_metric_chooses_the_traces(sessions: list[Session]) -> None:
    program = program_over(sessions, ANSWERS)
    accepted = accept(program, sessions, 1.0)
    right = [(f"s{k}", ANSWERS[k]) for k in (0, 1, 3, 5)]
    assert [(one.session.id, one.answer) for one in accepted] == right
    # What cannot be read is no lesson at any threshold; a wrong answer is one at 0.
    assert [one.session.id for one in accept(program, sessions, 0.0)] == [
        "s0",
        "s1",
        "s3",
        "s4",
        "s5",
    ]


def test_a_metric_may_give_a_judgement_or_a_number(sessions: list[Session]) -> None:
    program = program_over(sessions, ANSWERS)
    examples = as_examples(sessions)

    def said(example: Any, answer: Any) -> dspy.Prediction:
        return dspy.Prediction(score=matched_f1_metric(example, answer), feedback="well")

    found = [
        accepted_answers(program, examples, metric, 0.9, num_threads=1)
        for metric in (said, lambda e, a: matched_f1_metric(e, a) == 1.0)
    ]
    assert found == [accept(program, sessions, 0.9)] * 2


def test_a_metric_that_fails_stops_the_training(sessions: list[Session]) -> None:
    with pytest.raises(ZeroDivisionError):
        accepted_answers(
            program_over(sessions, ANSWERS),
            as_examples(sessions),
            lambda e, a: 1 / 0,
            0.5,
            num_threads=1,
        )


def test_what_was_scored_is_learnt(sessions: list[Session]) -> None:
    """A grouping may compose other bundles than the answer says: these are the lesson."""
    program = program_over(sessions, ["Thought: 1 tea; 2 desk"] * len(sessions))
    # No two intents are too far apart.
    program.grouping = SimilarIntents(weight=0.5, threshold=2.0, fall_back=False)
    (first, *_) = accept(program, sessions[:1], 1.0)
    assert first.answer.split(" | ")[0] == "1 2"


def test_traces_stand_under_the_programs_own_prompts(sessions: list[Session]) -> None:
    program = program_over(sessions, ANSWERS)
    program.knowledge = CompiledKnowledge(rules=("a rule",), k=1, sessions=tuple(sessions))
    asked = sessions[0]
    (lesson,) = trace_lessons(program, [Accepted(asked, "1 2")], "base")
    assert lesson["messages"][:-1] == program.messages(asked)
    assert lesson["messages"][-1] == {"role": "assistant", "content": "1 2"}
    assert [message["role"] for message in lesson["messages"]] == [
        *("system", "user", "assistant", "user", "assistant")
    ]
    # The nearest session is never the one asked about.
    assert lesson["messages"][1]["content"] != render_items(asked)


def test_a_demo_of_the_session_is_not_shown(sessions: list[Session]) -> None:
    """Its answer would be copied."""
    program = BundleGenerator()
    program.generate.demos = [{"session": render_items(s), "bundles": "1 2"} for s in sessions[:2]]
    (lesson,) = trace_lessons(program, [Accepted(sessions[1], "1 2")], "base")
    shown = [message["content"] for message in lesson["messages"] if message["role"] == "user"]
    assert shown == [render_items(session) for session in sessions[:2]]


def test_gold_is_taught_whole(sessions: list[Session]) -> None:
    assert gold_answer(sessions[0], "") == "1 2 | intent 0"
    thought = "; ".join(f"{n} tea" for n in range(1, 500))
    assert gold_answer(sessions[0], thought) == f"Thought: {thought}\n1 2 | intent 0"
    assert gold_answer(sessions[0], "a\nb").splitlines()[0] == "Thought: a; b"
