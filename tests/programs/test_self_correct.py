import asyncio

import dspy
import pytest

from routedk.errors import SettingError
from routedk.programs.choosing.self_correct import SelfCorrect
from routedk.programs.consensus import Consensus
from routedk.programs.generator import BundleGenerator
from routedk.programs.prompting.layout import Message
from routedk.programs.testing import scripted_lm
from routedk.types import Session


def script(messages: list[Message]) -> str:
    asked = messages[-1]["content"]
    if "Items:" in asked or "3 to 5 words" in messages[0]["content"]:
        return "brew tea"
    if "Given the intents" in asked:
        assert "1 3 | brew tea" in asked
        return "1 2 | brew tea"
    return "1 3 | cables"


def test_bundles_are_corrected_by_their_intents(tea: Session) -> None:
    lm, engine = scripted_lm(script)
    with dspy.context(lm=lm):
        prediction = SelfCorrect(BundleGenerator())(session=tea)
    assert [b.items for b in prediction.bundles] == [{"tea-1", "tea-2"}]
    assert [b.items for b in prediction.first.bundles] == [{"tea-1", "tea-3"}]
    assert (prediction.error, prediction.none, prediction.dropped) == (None, False, ())
    # The generator's answer, one intent, one correction.
    assert len(engine.requests) == 3
    assert (prediction.calls, prediction.input_tokens, prediction.output_tokens) == (3, 3, 3)
    shown = [message["content"] for message in engine.requests[-1]]
    assert "1 3 | cables" in shown


def test_around_a_program_that_counts_its_own_calls(tea: Session) -> None:
    lm, engine = scripted_lm(script)
    with dspy.context(lm=lm):
        program = SelfCorrect(Consensus(BundleGenerator(), n=3))
        prediction = asyncio.run(program.acall(session=tea))
    assert [b.items for b in prediction.bundles] == [{"tea-1", "tea-2"}]
    assert prediction.calls == len(engine.requests) == 5


def test_an_answer_that_cannot_be_read(tea: Session) -> None:
    lm, engine = scripted_lm(lambda messages: "what?")
    with dspy.context(lm=lm):
        prediction = SelfCorrect(BundleGenerator())(session=tea)
    assert (prediction.bundles, prediction.none) == ([], False)
    assert "no bundle in the answer" in prediction.error
    assert len(engine.requests) == 3


def test_nothing_to_correct(tea: Session) -> None:
    lm, engine = scripted_lm(lambda messages: "none")
    with dspy.context(lm=lm):
        prediction = SelfCorrect(BundleGenerator())(session=tea)
    assert (prediction.bundles, prediction.none, len(engine.requests)) == ([], True, 1)


def test_the_generators_own_language_model_corrects(tea: Session) -> None:
    own, asked = scripted_lm(script)
    other, idle = scripted_lm(script)
    generator = BundleGenerator()
    generator.set_lm(own)
    for configured in (None, other):
        with dspy.context(lm=configured):
            prediction = SelfCorrect(generator)(session=tea)
        assert [b.items for b in prediction.bundles] == [{"tea-1", "tea-2"}]
    assert (len(asked.requests), len(idle.requests)) == (6, 0)
    program = SelfCorrect(generator)
    program.talk.set_lm(other)
    with dspy.context(lm=None):
        program(session=tea)
    assert (len(asked.requests), len(idle.requests)) == (7, 2)


def test_of_several_language_models_dspys_corrects(tea: Session) -> None:
    own, asked = scripted_lm(script)
    other, corrects = scripted_lm(script)
    generator = BundleGenerator()
    generator.set_lm(own)
    generator._compiled = True
    with dspy.context(lm=None):
        assert SelfCorrect(Consensus(generator, n=1))(session=tea).calls == 3
    assert len(asked.requests) == 3
    generator.beside = dspy.Predict("question -> answer")
    with dspy.context(lm=other):
        SelfCorrect(generator)(session=tea)
    assert (len(asked.requests), len(corrects.requests)) == (4, 2)


def test_without_a_language_model(tea: Session) -> None:
    with dspy.context(lm=None), pytest.raises(SettingError, match="no language model"):
        SelfCorrect(BundleGenerator())(session=tea)


@pytest.mark.parametrize(
    ("generator", "corrections", "message"),
    [
        (BundleGenerator(), -1, "corrections=-1: it must be at least 0"),
        (BundleGenerator(), 1.5, "corrections=1.5: it must be a whole number"),
        (print, 1, "the generator is of builtin_function_or_method: it must be a dspy.Module"),
    ],
)
def test_settings_are_checked(generator: object, corrections: int, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SelfCorrect(generator, corrections=corrections)
