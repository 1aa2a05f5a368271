import asyncio

import dspy
import pytest

from routedk.errors import SettingError
from routedk.programs.choosing.consensus import Consensus
from routedk.programs.choosing.self_correct import SelfCorrect
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


def test_settings_are_checked() -> None:
    with pytest.raises(SettingError, match="self_corrections=-1"):
        SelfCorrect(BundleGenerator(), corrections=-1)
