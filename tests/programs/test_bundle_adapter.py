import dspy
import pytest

from routedk.programs import layout
from routedk.programs.bundle_adapter import BundleLayout, completion_of
from routedk.programs.context import NeighbourStyle
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge import CompiledKnowledge
from routedk.programs.signatures import GenerateBundles, VerifyBundle
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


def test_verification_is_byte_identical(tea: Session) -> None:
    ids = ["tea-1", "tea-2"]
    predict = dspy.Predict(VerifyBundle)
    lm, engine = scripted_lm(lambda messages: " Yes\n")
    inputs = {
        "rules": "",
        "similar": "",
        "session": layout.render_items(tea),
        "candidate": layout.render_candidate(tea, ids),
    }
    with dspy.context(lm=lm, adapter=BundleLayout()):
        assert predict(**inputs).verdict == "Yes"
    expected = layout.build_verify_messages(tea, ids)
    assert engine.requests == [expected]
    data = BundleLayout().format_finetune_data(VerifyBundle, [], inputs, {"verdict": layout.YES})
    assert data == {"messages": [*expected, {"role": "assistant", "content": "yes"}]}


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
