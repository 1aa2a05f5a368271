import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import dspy
import pytest

from routedk.errors import SettingError
from routedk.programs.choosing.likelihood import AnswerScores, LikelihoodRanking
from routedk.programs.generator import BundleGenerator
from routedk.programs.prompting.layout import render_answer
from routedk.programs.testing import scripted_lm
from routedk.programs.usage import Usage
from routedk.similarity.encoders import TfidfEncoder
from routedk.types import Bundle, Session

TITLES = ("red kettle", "blue kettle", "usb cable", "usb hub")


@pytest.fixture
def four(make: Callable[..., Session]) -> Session:
    return make("s", TITLES)


@pytest.fixture
def encoder() -> TfidfEncoder:
    return TfidfEncoder(TITLES)


class Scores:
    """A log-likelihood of -1 per token of what it likes, and -2 of anything else."""

    needs_intents = False

    def __init__(self, liked: str) -> None:
        self.liked = liked
        self.seen: list[str] = []

    def __call__(self, session: Session, answers: Sequence[Sequence[Bundle]]) -> AnswerScores:
        self.seen = [render_answer(session, answer) for answer in answers]
        tokens = tuple(len(text.split()) for text in self.seen)
        totals = tuple(
            -n * (1.0 if text == self.liked else 2.0)
            for n, text in zip(tokens, self.seen, strict=True)
        )
        return AnswerScores(totals, tokens, Usage(calls=1, input_tokens=50))


def test_the_likeliest_per_token_wins(four: Session, encoder: TfidfEncoder) -> None:
    scorer = Scores("1 2 | kettle\n3 4 | usb")
    prediction = LikelihoodRanking(None, scorer, encoder=encoder)(session=four)
    assert scorer.seen == ["1 2 | kettle\n3 4 | usb", "1 2 3 4"]
    assert [b.intent for b in prediction.bundles] == ["kettle", "usb"]
    assert prediction.scores == [-1.0, -2.0]
    # exp(-1) over exp(-1) + exp(-2).
    assert prediction.confidences == [pytest.approx(0.7310586), pytest.approx(0.7310586)]
    assert (prediction.calls, prediction.input_tokens, prediction.output_tokens) == (1, 50, 0)


def test_by_the_sum_the_shorter_wins(four: Session, encoder: TfidfEncoder) -> None:
    scorer = Scores("1 2 | kettle\n3 4 | usb")
    program = LikelihoodRanking(None, scorer, measure="sum", encoder=encoder)
    prediction = program(session=four)
    # Eight tokens at -1 and four at -2: equal, and the first of equal ones wins.
    assert prediction.scores == [-8.0, -8.0]
    assert len(prediction.bundles) == 2
    scorer.liked = "1 2 3 4"
    assert len(asyncio.run(program.acall(session=four)).bundles) == 1


def test_samples_are_candidates(four: Session, encoder: TfidfEncoder) -> None:
    scorer = Scores("1 3 | gifts")
    lm, engine = scripted_lm(lambda messages: "1 3 | gifts")
    with dspy.context(lm=lm):
        program = LikelihoodRanking(BundleGenerator(), scorer, n=3, encoder=encoder)
        prediction = program(session=four)
    assert [b.item_ids for b in prediction.bundles] == [("s-1", "s-3")]
    assert len(scorer.seen) == 3
    assert (prediction.votes, len(engine.requests), prediction.calls) == (3, 3, 4)


def test_one_item(make: Callable[..., Session], encoder: TfidfEncoder) -> None:
    prediction = LikelihoodRanking(None, Scores(""), encoder=encoder)(session=make("s", ["a"]))
    assert (prediction.bundles, prediction.none, prediction.scores) == ([], True, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measure": "max"}, "measure 'max': allowed are mean, sum"),
        ({"scorer": None}, "the scorer is of NoneType: it must be callable"),
        ({"temperature": -1.0}, "temperature=-1.0: it must be above 0"),
        ({"n": 2.5}, "n=2.5: it must be a whole number"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        LikelihoodRanking(None, **{"scorer": Scores(""), **settings})


def test_a_scorer_that_knows_bundles_by_their_intents(encoder: TfidfEncoder) -> None:
    scorer = Scores("")
    scorer.needs_intents = True
    with pytest.raises(SettingError, match="without samples they have hardly any"):
        LikelihoodRanking(None, scorer)
    with pytest.raises(SettingError, match="n of at least 1"):
        LikelihoodRanking(BundleGenerator(), scorer, n=0)
    LikelihoodRanking(BundleGenerator(), scorer, n=1)


@pytest.mark.parametrize(
    ("totals", "tokens", "message"),
    [
        ((-math.inf, -math.inf), (1, 1), "the scorer finds every candidate answer impossible"),
        ((None, -1.0), (1, 1), "the scorer gave None: it must be a log-likelihood"),
        ((-1.0, math.nan), (1, 1), "the scorer gave nan"),
        ((-1.0,), (1, 1), "the scorer gave 1 numbers for 2 candidates"),
        ((-1.0, -1.0), (1, 0), "the scorer gave 0: it must be at least one token"),
    ],
)
def test_what_a_scorer_says_is_checked(
    totals: Any, tokens: Any, message: str, four: Session, encoder: TfidfEncoder
) -> None:
    def scorer(session: Session, answers: Sequence[Sequence[Bundle]]) -> AnswerScores:
        return AnswerScores(totals, tokens)

    with pytest.raises(SettingError, match=message):
        LikelihoodRanking(None, scorer, encoder=encoder)(session=four)


def test_an_impossible_answer_is_not_chosen(four: Session, encoder: TfidfEncoder) -> None:
    def scorer(session: Session, answers: Sequence[Sequence[Bundle]]) -> AnswerScores:
        return AnswerScores((-math.inf, -1.0), (1, 1))

    prediction = LikelihoodRanking(None, scorer, encoder=encoder)(session=four)
    assert [len(bundle.items) for bundle in prediction.bundles] == [4]
    assert prediction.confidences == [1.0]
