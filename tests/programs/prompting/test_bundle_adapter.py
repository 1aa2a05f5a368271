import asyncio
from typing import Any

import dspy
import pytest

from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting import layout
from routedk.programs.prompting.asked import asked_now
from routedk.programs.prompting.bundle_adapter import BundleLayout
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.types import Session
from tests.scripted import scripted_lm


@pytest.mark.parametrize("show_thoughts", [False, True])
def test_icl_sft_and_inference_are_byte_identical(
    show_thoughts: bool, tea: Session, training: list[Session]
) -> None:
    knowledge = CompiledKnowledge(
        rules=("kettles go with cups", "socks stay out"),
        k=2,
        sessions=tuple(training),
        thoughts={"t1": "kettle and mug serve tea"},
        show_thoughts=show_thoughts,
    )
    generator = BundleGenerator(knowledge)
    prompt = layout.build_prompt(tea, knowledge.context(tea))
    assert generator.prompt(tea) == prompt
    expected = list(prompt.messages)

    lm, engine = scripted_lm(lambda messages: "1 2 | tea")
    with dspy.context(lm=lm):
        generator(session=tea)
    assert engine.requests == [expected]


def test_a_thought_that_implies_the_answer_stands_alone_everywhere(
    tea: Session, training: list[Session]
) -> None:
    thoughts = {"t1": "1 tea time; 2 tea time; 3 socks", "t2": "1 desk; 2 desk; 3 desk"}
    knowledge = CompiledKnowledge(
        k=3, sessions=tuple(training), thoughts=thoughts, show_thoughts=True
    )
    generator = BundleGenerator(knowledge)
    messages = generator.messages(tea)
    assert messages == [*layout.build_prompt(tea, knowledge.context(tea)).messages]
    prompt = "\n".join(message["content"] for message in messages)
    assert "Thought: 1 tea time; 2 tea time; 3 socks" in prompt
    assert "1 2 | tea time" not in prompt
    # A thought that implies another answer than the gold one never replaces it.
    assert "Thought: 1 desk; 2 desk; 3 desk\n1 2 | desk setup" in prompt


@pytest.mark.parametrize("answer", ["Thought: 1 a; 2 a; 3 none", "Thought: 1 a; 2 b"])
def test_a_thought_alone_goes_through_dspy(answer: str, tea: Session) -> None:
    lm, engine = scripted_lm(lambda messages: answer)
    with dspy.context(lm=lm):
        prediction = BundleGenerator()(session=tea)
    assert prediction.raw == answer
    assert prediction.error is None
    assert prediction.none is (len(prediction.bundles) == 0)
    assert len(engine.requests) == 1


@pytest.mark.parametrize("answer", ["Thought: a b\n1 2 | x", "<think>a</think>1 2", "1 2\n3 4"])
def test_a_completion_is_not_taken_apart(answer: str) -> None:
    fields = BundleLayout().parse(GenerateBundles, answer)
    assert fields == {"thought": "", "bundles": answer}


def test_no_demo_shows_the_reasoning_of_the_model_that_made_it(tea: Session) -> None:
    program = BundleGenerator()
    answers = ("Perhaps 1 3?\n</think>\n1 2 | tea", "<think>cut off")
    program.generate.demos = [{"session": "1 a\n2 b", "bundles": text} for text in answers]
    assert [message["content"] for message in program.messages(tea)[1:-1]] == [
        "1 a\n2 b",
        "1 2 | tea",
    ]


def test_the_items_are_announced_while_bundles_are_asked_for(tea: Session) -> None:
    seen: list[tuple[str, ...]] = []

    def script(messages: Any) -> str:
        seen.append(asked_now().lines)
        return "1 2"

    lm, _ = scripted_lm(script)
    program = BundleGenerator()
    with dspy.context(lm=lm):
        program(session=tea)
        asyncio.run(program.acall(session=tea))
        lm("hello")
    lines = ("1 red kettle", "2 tea cup", "3 usb cable")
    assert seen == [lines, lines, ()]
    assert program.prompt(tea).items == lines
    assert program.messages(tea)[-1]["content"] == "\n".join(lines)


def test_incomplete_demos_get_no_framing_text(tea: Session) -> None:
    demo = {"session": "1 a\n2 b", "bundles": "1 2"}
    inputs = {"session": layout.render_items(tea)}
    messages = BundleLayout().format(GenerateBundles, [demo], inputs)
    assert messages[1:3] == [
        {"role": "user", "content": "1 a\n2 b"},
        {"role": "assistant", "content": "1 2"},
    ]
