from typing import Any

import pytest

from routedk.adapters.prompts import encode_prompt, end_of_turn
from routedk.adapters.student import Student
from routedk.adapters.training.examples import (
    ROLES,
    check_form,
    encode_lines,
    training_rows,
    written_by,
)
from routedk.errors import SettingError
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.context import NO_CONTEXT, Neighbour, PromptContext
from routedk.programs.prompting.answers import read_answer
from routedk.programs.prompting.bundle_adapter import completion_of
from routedk.programs.prompting.layout import build_messages, render_answer, render_items
from routedk.types import KnowledgeBase, Session


@pytest.fixture
def tokenizer(loaded: Student) -> Any:
    return loaded.tokenizer


@pytest.fixture
def shown(sessions: list[Session], knowledge: KnowledgeBase) -> CompiledKnowledge:
    return CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        sessions=tuple(sessions),
        thoughts={thought.session_id: thought.text for thought in knowledge.thoughts},
    )


@pytest.mark.parametrize("style", [None, "demos", "blocks"])
def test_the_span_is_the_session(tokenizer: Any, sessions: list[Session], style: Any) -> None:
    context = NO_CONTEXT
    if style:
        # The neighbour's items are the same: the span is the last of both.
        context = PromptContext(neighbours=(Neighbour(session=sessions[3]),), style=style)
    prompt = encode_prompt(
        tokenizer, build_messages(sessions[3], context), render_items(sessions[3]).split("\n")
    )
    start, end = prompt.span
    assert render_items(sessions[3]) in tokenizer.decode(prompt.ids[start:end])
    assert tokenizer.decode(prompt.ids[end:]) == "<|im_end|>\n<|im_start|>assistant\n"
    assert start > len(prompt.ids) / 2 if style else start > 0


def test_without_a_session_all_of_the_prompt(tokenizer: Any) -> None:
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "hello"}])
    assert prompt.span == (0, len(prompt.ids))


def test_end_of_turn(tokenizer: Any) -> None:
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_end_of_turn_without_a_marker(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", plain)
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id


def test_rows_of_each_expert(
    tokenizer: Any, sessions: list[Session], shown: CompiledKnowledge
) -> None:
    rows = training_rows(tokenizer, sessions, shown, ["base", "rule", "thought"])
    assert [row.expert for row in rows] == [0] * 6 + [1] * 6 + [2] * 6
    base, rule, thought = (tokenizer.decode(rows[k].prompt) for k in (0, 6, 12))
    assert "Rules:" not in base
    assert "Thought:" not in base
    assert "Rules:" in rule
    assert "Thought: 1 " in thought
    for row in rows:
        session = sessions[rows.index(row) % 6]
        start, end = row.span
        assert render_items(session) in tokenizer.decode(row.prompt[start:end])


def test_a_line_is_the_item_then_its_intent(
    tokenizer: Any, sessions: list[Session], shown: CompiledKnowledge
) -> None:
    (line, given), *others = encode_lines(tokenizer, sessions[0], shown.thoughts["s0"])
    assert len(others) == len(sessions[0].items) - 1
    assert tokenizer.decode(line[:given]) == "1 kettle |"
    assert tokenizer.decode(line[given:]) == " brewing tea<|im_end|>"


def test_items_without_an_intent_have_no_line(tokenizer: Any, sessions: list[Session]) -> None:
    assert len(encode_lines(tokenizer, sessions[0], "2 brewing tea; 1 none")) == 1
    assert encode_lines(tokenizer, sessions[0], "because") == ()


def test_sessions_without_a_thought_are_left_out(
    tokenizer: Any, sessions: list[Session], shown: CompiledKnowledge
) -> None:
    one = CompiledKnowledge(sessions=shown.sessions, thoughts={"s2": shown.thoughts["s2"]})
    assert len(training_rows(tokenizer, sessions, one, ["base"])) == 1
    with pytest.raises(SettingError, match="no training session has a thought"):
        training_rows(tokenizer, sessions[:2], one, ["base"])


def test_prompts_and_answers_of_bundles_are_what_inference_renders(
    tokenizer: Any, sessions: list[Session], shown: CompiledKnowledge
) -> None:
    experts = ["base", "rule", "thought"]
    rows = training_rows(tokenizer, sessions, shown, experts, "bundles")
    assert [row.expert for row in rows] == [0] * 6 + [1] * 6 + [2] * 6
    for row, session in zip(rows, sessions * 3, strict=True):
        role = ROLES["bundles"][experts[row.expert]]
        program = BundleGenerator(role.sees(shown))
        assert row.prompt == encode_prompt(tokenizer, program.messages(session)).ids
        ((completion, given),) = row.lines
        assert given == 0
        answer = tokenizer.decode(completion)
        assert answer.endswith("<|im_end|>")
        fields = {"bundles": render_answer(session, session.bundles or ())}
        if role.writes == "thought, then bundles":
            fields["thought"] = shown.thoughts[session.id]
            assert answer.startswith("Thought: 1 ")
            assert answer.count("\n") == 1
        text = answer.removesuffix("<|im_end|>")
        assert text == completion_of(fields)
        parsed = read_answer(text, session)
        assert {bundle.items for bundle in parsed.bundles} == set(session.gold)
        assert parsed.thought == fields.get("thought", "")


def test_prompts_are_the_same_in_every_form(
    tokenizer: Any, sessions: list[Session], shown: CompiledKnowledge
) -> None:
    forms = [
        training_rows(tokenizer, sessions, shown, ["rule", "thought"], form, lambda session: ())
        for form in ROLES
    ]
    for rows in forms[1:]:
        assert [row.prompt for row in forms[0]] == [row.prompt for row in rows]


def test_only_writing_a_thought_needs_one(
    tokenizer: Any, sessions: list[Session], shown: CompiledKnowledge
) -> None:
    none = CompiledKnowledge(sessions=shown.sessions)
    rows = training_rows(tokenizer, sessions, none, ["base", "thought"], "bundles")
    assert [row.expert for row in rows] == [0] * 6


def test_answer_forms() -> None:
    assert written_by(["base", "rule"], "bundles") == "bundles"
    assert written_by(["base", "thought"], "bundles") == "thought, then bundles"
    assert written_by(["base", "thought", "mixed"], "item-intents") == "item-intents"
    assert written_by(["base", "thought"], "verification") == "verification"
    with pytest.raises(SettingError, match="answer form 'prose': allowed are item-intents, bun"):
        check_form("prose")


def test_unknown_experts(tokenizer: Any, sessions: list[Session], shown: CompiledKnowledge) -> None:
    allowed = ", ".join(ROLES["item-intents"])
    with pytest.raises(SettingError, match=rf"experts \['x'\]: allowed are {allowed}"):
        training_rows(tokenizer, sessions, shown, ["base", "x"])
