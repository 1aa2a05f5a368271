import dspy
import pytest

from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.context import NeighbourStyle
from routedk.programs.prompting import layout
from routedk.programs.prompting.bundle_adapter import BundleLayout, completion_of
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.testing import scripted_lm
from routedk.types import Session


@pytest.mark.parametrize("style", ["demos", "blocks"])
@pytest.mark.parametrize("show_thoughts", [False, True])
def test_icl_sft_and_inference_are_byte_identical(
    style: NeighbourStyle, show_thoughts: bool, tea: Session, training: list[Session]
) -> None:
    knowledge = CompiledKnowledge(
        rules=("kettles go with cups", "socks stay out"),
        k=2,
        sessions=tuple(training),
        thoughts={"t1": "kettle and mug serve tea"},
        show_thoughts=show_thoughts,
        style=style,
    )
    generator = BundleGenerator(knowledge)
    expected = layout.build_messages(tea, knowledge.context(tea))

    lm, engine = scripted_lm(lambda messages: "1 2 | tea")
    with dspy.context(lm=lm):
        generator(session=tea)
    assert engine.requests == [expected]

    inputs = generator.request(tea)
    demos = inputs.pop("demos")
    answer = layout.render_answer(tea, tea.bundles or ())
    outputs = {"thought": "kettle, cup", "bundles": answer}
    data = BundleLayout().format_finetune_data(GenerateBundles, demos, inputs, outputs)
    completion = {"role": "assistant", "content": "Thought: kettle, cup\n1 2 | brewing tea at home"}
    assert data == {"messages": [*expected, completion]}
    assert completion["content"] == layout.assistant_content(answer, "kettle, cup")


def test_demo_turns_are_rendered_as_a_training_example(
    tea: Session, training: list[Session]
) -> None:
    """A neighbour shown in a prompt reads as the example the student was fine-tuned on."""
    demo = layout.build_messages(training[0])[1:]
    demo.append(
        {
            "role": "assistant",
            "content": layout.render_answer(training[0], training[0].bundles or ()),
        }
    )
    generator = BundleGenerator(CompiledKnowledge(k=1, sessions=(training[0],)))
    assert generator.messages(tea)[1:3] == demo


@pytest.mark.parametrize("style", ["demos", "blocks"])
def test_a_thought_that_implies_the_answer_stands_alone_everywhere(
    style: NeighbourStyle, tea: Session, training: list[Session]
) -> None:
    thoughts = {"t1": "1 tea time; 2 tea time; 3 socks", "t2": "1 desk; 2 desk; 3 desk"}
    knowledge = CompiledKnowledge(
        k=3, sessions=tuple(training), thoughts=thoughts, show_thoughts=True, style=style
    )
    generator = BundleGenerator(knowledge)
    messages = generator.messages(tea)
    assert messages == layout.build_messages(tea, knowledge.context(tea))
    prompt = "\n".join(message["content"] for message in messages)
    assert "Thought: 1 tea time; 2 tea time; 3 socks" in prompt
    assert "1 2 | tea time" not in prompt
    # A thought that implies another answer than the gold one never replaces it.
    assert "Thought: 1 desk; 2 desk; 3 desk\n1 2 | desk setup" in prompt

    thought, answer = thoughts["t1"], layout.render_answer(training[0], training[0].bundles or ())
    outputs = {"thought": thought, "bundles": answer}
    inputs = {"session": layout.render_items(training[0])}
    data = BundleLayout().format_finetune_data(GenerateBundles, [], inputs, outputs)
    assert data["messages"][-1]["content"] == f"Thought: {thought}"
    if style == "demos":
        assert data["messages"][1:] in [messages[n : n + 2] for n in (1, 3, 5)]


@pytest.mark.parametrize("answer", ["Thought: 1 a; 2 a; 3 none", "Thought: 1 a; 2 b"])
def test_a_thought_alone_goes_through_dspy(answer: str, tea: Session) -> None:
    lm, engine = scripted_lm(lambda messages: answer)
    with dspy.context(lm=lm):
        prediction = BundleGenerator()(session=tea)
    assert prediction.raw == answer
    assert prediction.error is None
    assert prediction.none is (len(prediction.bundles) == 0)
    assert len(engine.requests) == 1
    fields = BundleLayout().parse(GenerateBundles, answer)
    assert BundleLayout().format_assistant_message_content(GenerateBundles, fields) == answer


@pytest.mark.parametrize(
    ("completion", "fields"),
    [
        ("Thought: a b\n1 2 | x", {"thought": "a b", "bundles": "1 2 | x"}),
        ("1 2 | x\n3 4", {"thought": "", "bundles": "1 2 | x\n3 4"}),
        ("<think>a</think>1 2", {"thought": "", "bundles": "<think>a</think>1 2"}),
        ("1 2\nThought: late", {"thought": "", "bundles": "1 2\nThought: late"}),
        ("Thought: only", {"thought": "only", "bundles": ""}),
    ],
)
def test_parse_loses_nothing(completion: str, fields: dict[str, str]) -> None:
    assert BundleLayout().parse(GenerateBundles, completion) == fields
    assert completion_of(fields) == completion


def test_incomplete_demos_get_no_framing_text(tea: Session) -> None:
    demo = {"session": "1 a\n2 b", "bundles": "1 2"}
    inputs = {"session": layout.render_items(tea)}
    messages = BundleLayout().format(GenerateBundles, [demo], inputs)
    assert messages[1:3] == [
        {"role": "user", "content": "1 a\n2 b"},
        {"role": "assistant", "content": "1 2"},
    ]
