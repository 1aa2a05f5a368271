import asyncio
import itertools
from threading import Lock

import dspy
import pytest

from routedk.errors import SettingError
from routedk.programs.consensus import Consensus, central_prediction, confidence
from routedk.programs.generator import BundleGenerator
from routedk.programs.usage import metered
from routedk.types import Bundle, Session
from tests.scripted import ScriptedEngine, scripted_lm


def answer(*bundles: str) -> tuple[Bundle, ...]:
    """Bundles from texts such as ``12 tea``."""
    made = []
    for text in bundles:
        numbers, _, intent = text.partition(" ")
        made.append(Bundle(tuple(f"s-{n}" for n in numbers), intent))
    return tuple(made)


def central(*answers: tuple[Bundle, ...]) -> tuple[Bundle, ...]:
    predictions = [dspy.Prediction(bundles=bundles, error=None) for bundles in answers]
    found: tuple[Bundle, ...] = central_prediction(predictions).bundles
    return found


def test_the_answer_that_others_are_most_like_wins() -> None:
    # Sums of F1 against the others: .94, 1.39, 1.11 and .22.
    wins = answer("123", "45")
    assert central(answer("12", "34"), wins, answer("123"), answer("56")) == wins


def test_of_equal_answers_the_first_wins() -> None:
    assert central(answer("12"), answer("34")) == answer("12")
    assert central(()) == ()


def test_confidence_is_the_mean_best_jaccard() -> None:
    (bundle,) = answer("12")
    assert confidence(bundle, [answer("12"), answer("123", "45"), ()]) == pytest.approx(5 / 9)
    assert confidence(bundle, [answer("12 other words")] * 3) == 1.0


def cycling(*answers: str) -> tuple[object, ScriptedEngine]:
    left, lock = itertools.cycle(answers), Lock()

    def script(messages: object) -> str:
        with lock:
            return next(left)

    return scripted_lm(script)


def test_samples_of_a_generator(tea: Session) -> None:
    lm, engine = cycling("1 2 | tea", "1 2 | brewing", "1 2 3", "what?")
    with dspy.context(lm=lm), metered() as meter:
        prediction = Consensus(BundleGenerator(), n=4, temperature=0.9)(session=tea)
    assert [b.items for b in prediction.bundles] == [{"tea-1", "tea-2"}]
    assert prediction.confidences == [pytest.approx((1 + 1 + 2 / 3) / 3)]
    assert (prediction.votes, len(prediction.answers)) == (3, 4)
    assert (meter.usage.calls, meter.usage.input_tokens, meter.usage.output_tokens) == (4, 4, 4)
    assert (prediction.none, prediction.error) == (False, None)
    assert sorted(c.temperature or 0.0 for c in engine.configs) == [0.0, 0.9, 0.9, 0.9]


def test_no_bundle_and_no_answer(tea: Session) -> None:
    lm, _ = cycling("none")
    with dspy.context(lm=lm):
        prediction = Consensus(BundleGenerator(), n=2)(session=tea)
    assert (prediction.bundles, prediction.none, prediction.error) == ([], True, None)
    lm, _ = cycling("what?")
    with dspy.context(lm=lm):
        prediction = Consensus(BundleGenerator(), n=2)(session=tea)
    assert (prediction.bundles, prediction.none, prediction.votes) == ([], False, 0)
    assert "no bundle in the answer" in prediction.error


def test_async_and_a_language_model_of_its_own(tea: Session) -> None:
    lm, engine = cycling("1 2 | tea")
    generator = BundleGenerator()
    generator.set_lm(lm)
    program = Consensus(generator, n=3)
    assert asyncio.run(program.acall(session=tea)).confidences == [1.0]
    assert len(engine.requests) == 3
    assert generator.generate.lm.kwargs.get("temperature") is None


def test_samples_with_a_seed_differ_in_it(tea: Session) -> None:
    lm, engine = cycling("1 2 | tea")
    engine.supported_params |= {"seed"}
    with dspy.context(lm=lm.copy(seed=7)):  # type: ignore[attr-defined]
        Consensus(BundleGenerator(), n=3)(session=tea)
    assert sorted(config.seed for config in engine.configs) == [7, 8, 9]


def test_without_a_language_model(tea: Session) -> None:
    with pytest.raises(SettingError, match="no language model"):
        Consensus(BundleGenerator(), n=2)(session=tea)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n=0: it must be at least 1"),
        ({"temperature": 0.0}, r"temperature=0.0: it must be above 0"),
        ({"temperature": 2.5}, r"temperature=2.5: .* at most 2"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Consensus(BundleGenerator(), **settings)  # type: ignore[arg-type]
