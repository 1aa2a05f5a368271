import asyncio
import itertools
from collections.abc import Callable, Sequence

import dspy
import pytest

from routedk.errors import SettingError
from routedk.eval.matched import matched_f1
from routedk.programs.choosing.candidates import shared_words
from routedk.programs.choosing.verification import (
    Verdicts,
    Verification,
    best_answer,
    greedy_pick,
    world_weights,
)
from routedk.programs.generator import BundleGenerator
from routedk.programs.testing import scripted_lm
from routedk.programs.usage import Usage
from routedk.similarity.encoders import MiniLMEncoder, TfidfEncoder
from routedk.types import Session

Make = Callable[..., Session]

AB, CD, ABCD = frozenset("ab"), frozenset("cd"), frozenset("abcd")
TITLES = ("red kettle", "blue kettle", "usb cable", "usb hub", "green lamp")


@pytest.fixture
def five(make: Make) -> Session:
    return make("s", TITLES)


@pytest.fixture
def encoder() -> TfidfEncoder:
    return TfidfEncoder(TITLES)


def sets(*bundles: str) -> list[frozenset[str]]:
    return [frozenset(f"s-{n}" for n in numbers) for numbers in bundles]


class Judge:
    """Knows some bundles, and how sure it is."""

    def __init__(self, *known: str, sure: float = 0.9) -> None:
        self.known = sets(*known)
        self.sure = sure
        self.asked: list[list[frozenset[str]]] = []

    def __call__(self, session: Session, candidates: Sequence[frozenset[str]]) -> Verdicts:
        self.asked.append(list(candidates))
        said = tuple(self.sure if c in self.known else 1 - self.sure for c in candidates)
        return Verdicts(said, Usage(calls=1, input_tokens=100))


def test_weights_of_worlds_by_hand() -> None:
    judged = {AB: 0.8, ABCD: 0.3}
    # .8 * .7 and .2 * .3, over their sum.
    weights = world_weights([(AB,), (ABCD,)], judged)
    assert weights == pytest.approx([0.56 / 0.62, 0.06 / 0.62])
    # .2 * .7 for the world without any bundle.
    assert world_weights([(AB,), ()], judged) == pytest.approx([0.8, 0.2])


def test_expected_f1_by_hand() -> None:
    judged = {AB: 0.55, CD: 0.55, ABCD: 0.5}
    # Worlds AB+CD, ABCD, AB, CD: .3025, .2025, .2475, .2475 of the weight.
    # AB+CD has F1 1, 1/3, 2/3, 2/3 in them; ABCD has 1/3, 1, 1/2, 1/2.
    answer, expected = best_answer([(ABCD,), (AB, CD)], judged)
    assert (answer, expected) == ((AB, CD), pytest.approx(0.70))
    answer, expected = best_answer([(ABCD,)], judged)
    # Without AB+CD among the answers it is no world: .2025, .2475, .2475 over .6975.
    assert expected == pytest.approx((0.2025 + 0.2475) / 0.6975)


def test_expected_f1_equals_an_enumeration() -> None:
    judged = {AB: 0.7, CD: 0.2, ABCD: 0.4, frozenset("abc"): 0.6}
    answers = [(AB,), (AB, CD), (ABCD,), ()]
    worlds = [*answers, (CD,), (frozenset("abc"),)]
    weights = []
    for world in worlds:
        weight = 1.0
        for items, p in judged.items():
            weight *= p if items in world else 1 - p
        weights.append(weight)
    scores = [
        sum(w * matched_f1(world, a) for world, w in zip(worlds, weights, strict=True))
        / sum(weights)
        for a in answers
    ]
    answer, expected = best_answer(answers, judged)
    assert expected == pytest.approx(max(scores))
    assert answer == answers[scores.index(max(scores))]


def test_certainty_rules_nothing_out() -> None:
    weights = world_weights([(AB,), (CD,)], {AB: 0.0, CD: 0.0, ABCD: 1.0})
    assert weights == pytest.approx([0.5, 0.5])


def test_the_greedy_pick_is_disjoint_and_likely() -> None:
    judged = {AB: 0.9, ABCD: 0.95, CD: 0.8, frozenset("ef"): 0.5, frozenset("gh"): 0.49}
    assert greedy_pick(judged) == (ABCD, frozenset("ef"))
    assert greedy_pick({AB: 0.3}) == ()


def test_without_a_generator(five: Session, encoder: TfidfEncoder) -> None:
    judge = Judge("12", "34")
    program = Verification(None, judge, encoder=encoder)
    prediction = program(session=five)
    assert [bundle.items for bundle in prediction.bundles] == sets("12", "34")
    assert [bundle.intent for bundle in prediction.bundles] == ["kettle", "usb"]
    assert prediction.confidences == [0.9, 0.9]
    assert (prediction.calls, prediction.input_tokens, prediction.output_tokens) == (1, 100, 0)
    assert (prediction.none, prediction.error, prediction.answers) == (False, None, [])
    # The dendrogram's nodes: n - 1 of n items, the whole session among them.
    ((*asked,),) = judge.asked
    assert len(asked) == 4
    assert sets("12345")[0] in asked
    assert 0.5 < prediction.expected <= 1
    assert [b.items for b in program(session=five).bundles] == sets("12", "34")


def test_what_only_a_sample_has_can_win(five: Session, encoder: TfidfEncoder) -> None:
    left = itertools.cycle(["1 5 | cosy evening", "what?"])
    lm, engine = scripted_lm(lambda messages: next(left))
    program = Verification(BundleGenerator(), Judge("15"), n=2, encoder=encoder)
    with dspy.context(lm=lm):
        prediction = program(session=five)
    assert [b.items for b in prediction.bundles] == sets("15")
    assert prediction.bundles[0].intent == "cosy evening"
    assert (prediction.votes, len(prediction.answers), len(engine.requests)) == (1, 2, 2)
    assert (prediction.calls, prediction.input_tokens, prediction.output_tokens) == (3, 102, 2)


def test_the_greedy_pick_can_win(five: Session, encoder: TfidfEncoder) -> None:
    """Bundles of two samples make an answer that neither has."""
    left = itertools.cycle(["1 5 | cosy", "2 3 | odd"])
    lm, _ = scripted_lm(lambda messages: next(left))
    program = Verification(BundleGenerator(), Judge("15", "23", sure=0.95), n=2, encoder=encoder)
    with dspy.context(lm=lm):
        prediction = program(session=five)
    assert {b.items for b in prediction.bundles} == set(sets("15", "23"))
    assert prediction.expected > 0.9


def test_intents_of_the_nearest_sample(five: Session, encoder: TfidfEncoder) -> None:
    lm, _ = scripted_lm(lambda messages: "1 2 5 | hot drinks\n3 4 5")
    program = Verification(BundleGenerator(), Judge("12", "34"), n=1, encoder=encoder)
    with dspy.context(lm=lm):
        bundles = program(session=five).bundles
    assert [(b.items, b.intent) for b in bundles] == [
        (sets("12")[0], "hot drinks"),
        (sets("34")[0], "usb"),
    ]


def test_samples_of_no_bundle(five: Session, encoder: TfidfEncoder) -> None:
    lm, _ = scripted_lm(lambda messages: "none")
    program = Verification(BundleGenerator(), Judge(sure=0.99), n=1, encoder=encoder)
    with dspy.context(lm=lm):
        prediction = program(session=five)
    assert (prediction.bundles, prediction.none, prediction.confidences) == ([], True, [])


def test_one_item_is_no_bundle(make: Make, encoder: TfidfEncoder) -> None:
    judge = Judge()
    prediction = Verification(None, judge, encoder=encoder)(session=make("s", ["kettle"]))
    assert (prediction.bundles, prediction.none, judge.asked) == ([], True, [])


def test_async_copies_and_state(five: Session) -> None:
    program = Verification(BundleGenerator(), Judge("12"), n=0, encoder=MiniLMEncoder())
    assert program.samples is None
    copy = Verification(BundleGenerator(), Judge("12"), n=2, encoder=program.encoder).deepcopy()
    assert copy.encoder is program.encoder
    assert list(copy.dump_state()) == ["samples.generator.generate"]
    program.encoder = TfidfEncoder(TITLES)
    prediction = asyncio.run(program.acall(session=five))
    assert [b.items for b in prediction.bundles] == sets("12")


def test_shared_words() -> None:
    assert shared_words(["Red Kettles 1L", "kettle, blue", "old kettle"]) == "kettles"
    assert shared_words(["red kettle", "lamp"]) == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": -1}, "n=-1: it must be at least 0"),
        ({"temperature": 0.0}, "temperature=0.0: it must be above 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Verification(BundleGenerator(), Judge(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("probability", [2.0, -1.0, float("nan")])
def test_what_a_verifier_says_is_checked(
    probability: float, five: Session, encoder: TfidfEncoder
) -> None:
    def verifier(session: Session, candidates: Sequence[frozenset[str]]) -> Verdicts:
        return Verdicts((probability,) * len(candidates))

    with pytest.raises(SettingError, match=f"the verifier gave {probability}: it must be a prob"):
        Verification(None, verifier, encoder=encoder)(session=five)


def test_too_few_verdicts(five: Session, encoder: TfidfEncoder) -> None:
    program = Verification(None, lambda session, candidates: Verdicts((0.5,)), encoder=encoder)
    with pytest.raises(SettingError, match="the verifier gave 1 numbers for 4 candidates"):
        program(session=five)
