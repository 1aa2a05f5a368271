import asyncio

import dspy
import pytest
from dspy.utils.exceptions import LMError

from routedk.programs.batch import call_all, generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import Bundle, Session
from tests.scripted import scripted_lm


def test_a_session_in_bundles_out(tea: Session) -> None:
    lm, _ = scripted_lm(lambda messages: "Thought: for tea\n1 2 9 | tea")
    with dspy.context(lm=lm):
        prediction = BundleGenerator()(session=tea)
    assert prediction.bundles == [Bundle(("tea-1", "tea-2"), "tea")]
    assert prediction.thought == "for tea"
    assert prediction.dropped == ("no such item: 9",)
    assert prediction.raw == "Thought: for tea\n1 2 9 | tea"
    assert prediction.error is None
    assert not prediction.none


def test_no_bundle_is_an_answer(tea: Session) -> None:
    lm, _ = scripted_lm(lambda messages: "none")
    with dspy.context(lm=lm):
        prediction = BundleGenerator()(session=tea)
    assert prediction.none
    assert prediction.bundles == []
    assert prediction.error is None


@pytest.mark.parametrize(
    ("answer", "error"), [("blah", "no bundle in"), ("", "the answer is empty")]
)
def test_an_unparsable_answer_is_data(answer: str, error: str, tea: Session) -> None:
    lm, engine = scripted_lm(lambda messages: answer)
    with dspy.context(lm=lm):
        prediction = BundleGenerator()(session=tea)
    assert prediction.bundles == []
    assert prediction.raw == answer
    assert prediction.error.startswith(error)
    assert len(engine.requests) == 1


def test_a_failing_lm_raises(tea: Session, training: list[Session]) -> None:
    def fail(messages: object) -> str:
        raise OSError("no power")

    lm, _ = scripted_lm(fail)
    with dspy.context(lm=lm):
        with pytest.raises(LMError, match="no power"):
            BundleGenerator()(session=tea)
        with pytest.raises(LMError, match="no power"):
            generate_all(BundleGenerator(), training, num_threads=2)


def test_async(tea: Session) -> None:
    lm, _ = scripted_lm(lambda messages: "1 2")

    async def ask() -> dspy.Prediction:
        with dspy.context(lm=lm):
            return await BundleGenerator().acall(session=tea)

    assert asyncio.run(ask()).bundles == [Bundle(("tea-1", "tea-2"))]


def test_many_in_order(tea: Session, training: list[Session]) -> None:
    lm, _ = scripted_lm(lambda messages: "1 2 | " + messages[-1]["content"].split()[1])
    with dspy.context(lm=lm):
        answers = generate_all(BundleGenerator(), [tea, *training], num_threads=4)
        pairs = [(BundleGenerator(), {"session": s}) for s in training]
        parallel = dspy.Parallel(num_threads=2, timeout=0, disable_progress_bar=True)(pairs)
    assert [a.bundles[0].intent for a in answers] == ["red", "blue", "usb", "socks"]
    assert [a.bundles[0].intent for a in parallel] == ["blue", "usb", "socks"]
    assert generate_all(BundleGenerator(), []) == []


def test_calls_within_calls_keep_order_settings_and_the_first_error() -> None:
    def inner(number: int) -> tuple[int, object]:
        if number == 7 + 100:
            raise ValueError("seven")
        return number, dspy.settings.lm

    def outer(number: int) -> list[tuple[int, object]]:
        lm = f"lm {number}"
        with dspy.context(lm=lm):
            return call_all(inner, [number, number + 100], num_threads=2)

    found = call_all(outer, [1, 2, 3], num_threads=3)
    assert found == [[(n, f"lm {n}"), (n + 100, f"lm {n}")] for n in (1, 2, 3)]
    with pytest.raises(ValueError, match="seven"):
        call_all(outer, range(20), num_threads=4)


def test_options_of_one_call_reach_the_lm(tea: Session) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    with dspy.context(lm=lm):
        BundleGenerator()(session=tea, config={"temperature": 0.7})
    assert [config.temperature for config in engine.configs] == [0.7]


def test_own_demos_come_before_neighbours(tea: Session, training: list[Session]) -> None:
    generator = BundleGenerator(CompiledKnowledge(k=1, sessions=tuple(training)))
    generator.generate.demos = [
        {"rules": "", "similar": "", "session": "1 x\n2 y", "thought": "", "bundles": "1 2"}
    ]
    contents = [message["content"] for message in generator.messages(tea)]
    assert contents[1:3] == ["1 x\n2 y", "1 2"]
    assert len(contents) == 6


def test_copies_share_knowledge_and_are_independent(training: list[Session]) -> None:
    generator = BundleGenerator(CompiledKnowledge(k=1, sessions=tuple(training)))
    copy = generator.deepcopy()
    assert copy.knowledge is generator.knowledge
    copy.generate.demos.append({"session": "x"})
    assert generator.generate.demos == []
