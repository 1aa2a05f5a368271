"""Consensus: several answers of one generator, and what they agree on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from types import MappingProxyType
from typing import Any

import dspy
import numpy as np

from routedk.errors import SettingError
from routedk.eval.matched import matched_f1
from routedk.eval.overlap import ItemSets, jaccard
from routedk.programs.batch import call_all
from routedk.programs.checks import check_count, check_generator, check_temperature, no_lm
from routedk.programs.session_program import SessionProgram
from routedk.programs.usage import Usage, metered
from routedk.similarity.dendrogram import Dendrogram
from routedk.types import Bundle, Session, bundle_sets

Answers = Sequence[Sequence[Bundle]]
Rule = Callable[[Session, Answers], tuple[Bundle, ...]]

# DSPy replaces a temperature up to this where n completions are asked for.
_DSPY_LEAST = 0.15


class Consensus(SessionProgram):
    """Draws n answers of a generator and gives the one, or the bundles, that they agree on.

    Works around a ``dspy.Module`` that takes ``session=`` and answers with ``bundles``, and with
    any ``dspy.LM``; one that computes n completions of a request together, as a student in this
    process does, is asked for all further draws at once. Answers that could not be read have no
    vote; where none could, there are no bundles, and ``error`` is the first one's. The prediction
    has ``bundles``, ``confidences`` (for each bundle its mean agreement, see `confidence`),
    ``votes`` (how many answers could be read), ``none``, ``error``, ``answers`` (all predictions
    that were drawn) and ``calls``, ``input_tokens``, ``output_tokens``.

    Args:
        generator: What answers; it is not changed.
        n: Number of answers, at least 1. The first is drawn as the generator is set, the others at
            the temperature.
        temperature: Of the further draws, above 0.
        rule: Name of what is returned, see ``RULES``.

    Raises:
        SettingError: A value is not allowed; when called: no LM is configured.

    Source: minimum Bayes risk decoding with the metric as its utility, Kumar and Byrne, 2004
    (aclanthology.org/N04-1022).
    """

    def __init__(
        self, generator: Any, *, n: int = 8, temperature: float = 0.7, rule: str = "mbr"
    ) -> None:
        """Check and keep the settings."""
        super().__init__()
        check_generator(generator)
        check_count("n", n, 1)
        check_temperature(temperature)
        if rule not in RULES:
            raise SettingError(f"consensus rule {rule!r}: allowed are {', '.join(RULES)}")
        self.generator = generator
        self.n = n
        self.temperature = temperature
        self.rule = rule

    def _answer(self, session: Session) -> dspy.Prediction:
        def draw(ask: Callable[[Session], list[Any]]) -> tuple[list[Any], Usage]:
            with metered() as meter:
                answers = ask(session)
            return answers, meter.usage

        # All at once, so that a batching LM computes them as one batch.
        asks = self._asks()
        drawn = call_all(draw, asks, num_threads=len(asks))
        answers = [answer for mine, _ in drawn for answer in mine]
        usage = sum((usage for _, usage in drawn), Usage())
        votes = [answer for answer in answers if _error(answer) is None]
        read = [tuple(answer.bundles) for answer in votes]
        bundles = RULES[self.rule](session, read) if read else ()
        return dspy.Prediction(
            bundles=list(bundles),
            confidences=[confidence(bundle, read) for bundle in bundles],
            votes=len(votes),
            none=bool(read) and not bundles,
            error=None if read else _error(answers[0]),
            answers=answers,
            calls=usage.calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )

    def _asks(self) -> list[Callable[[Session], list[Any]]]:
        """What gives the answers, n in all, the first as the generator is set.

        The further draws are one request where the language model computes its completions
        together, and a generator can ask so; else one request each.
        """
        further = range(1, self.n)
        lms = [predictor.lm or dspy.settings.lm for predictor in self.generator.predictors()]
        if further and None in lms:
            raise no_lm()
        asks = [partial(_answer, self.generator)]
        together = bool(lms) and all(_draws_together(lm) for lm in lms)
        draws = getattr(self.generator, "draws", None)
        if len(further) > 1 and together and draws and self.temperature > _DSPY_LEAST:
            config = {"temperature": self.temperature, "rollout_id": self.n}
            return [*asks, partial(draws, n=len(further), config=config)]
        return [*asks, *(partial(_answer, self._drawing(number)) for number in further)]

    def _drawing(self, number: int) -> Any:
        """The generator, set to draw; each draw is one that DSPy's cache knows from the others."""
        program = self.generator.deepcopy()
        for predictor in program.predictors():
            lm = predictor.lm or dspy.settings.lm
            predictor.lm = lm.copy(temperature=self.temperature, rollout_id=number)
        return program


def _draws_together(lm: Any) -> bool:
    return bool(getattr(getattr(lm, "engine", None), "draws_together", False))


def _answer(program: Any, session: Session) -> list[Any]:
    return [program(session=session)]


def _error(answer: Any) -> str | None:
    """Why an answer could not be read; programs that cannot fail so have no such field."""
    error: str | None = answer.get("error")
    return error


def minimum_bayes_risk(session: Session, answers: Answers) -> tuple[Bundle, ...]:
    """The answer with the highest mean matched F1 against all, the first of equal ones.

    Args:
        session: What was asked about.
        answers: The bundles of each answer, at least one answer.
    """
    return tuple(answers[_central(answers)])


def _central(answers: Answers) -> int:
    """The place of the answer with the highest mean matched F1 against all."""
    sets = [bundle_sets(bundles) for bundles in answers]
    utilities = [sum(matched_f1(other, mine) for other in sets) for mine in sets]
    # Rounding keeps ties ties, whatever the order of a sum.
    return max(range(len(answers)), key=lambda place: round(utilities[place], 9))


def central_prediction(predictions: Sequence[Any]) -> Any:
    """The prediction that agrees most with the others, for ``dspy.Ensemble(reduce_fn=...)``.

    As the rule ``mbr``, but over the answers of several programs. Predictions that could not be
    read have no vote; where none could, it is the first. (``dspy.majority`` counts one field as
    text, and bundles are none.)

    Args:
        predictions: Of one session, at least one, each with ``bundles``.
    """
    votes = [prediction for prediction in predictions if _error(prediction) is None]
    if not votes:
        return predictions[0]
    return votes[_central([prediction.bundles for prediction in votes])]


def agreement_clusters(session: Session, answers: Answers) -> tuple[Bundle, ...]:
    """Items that at least half of the answers bundle together, by average linkage.

    A bundle's intent is that of the bundle nearest to it, by Jaccard, in any answer.

    Args:
        session: What was asked about.
        answers: The bundles of each answer, at least one answer.
    """
    places = {item.id: place for place, item in enumerate(session.items)}
    together = np.zeros((len(places), len(places)))
    for bundles in answers:
        pairs = {
            pair
            for bundle in bundles
            for pair in combinations(sorted(map(places.__getitem__, bundle.item_ids)), 2)
        }
        for one, other in pairs:
            together[one, other] += 1
            together[other, one] += 1
    clusters = Dendrogram.of_distances(list(places), 1 - together / len(answers)).cut(0.5)
    stated = [bundle for bundles in answers for bundle in bundles]
    found = []
    for cluster in clusters:
        nearest = max(stated, key=lambda bundle: jaccard(bundle.items, cluster))
        ids = tuple(item.id for item in session.items if item.id in cluster)
        found.append(replace(nearest, item_ids=ids))
    return tuple(found)


RULES: Mapping[str, Rule] = MappingProxyType(
    {"mbr": minimum_bayes_risk, "agreement": agreement_clusters}
)


def confidence(bundle: Bundle, answers: Answers) -> float:
    """How far answers agree on a bundle: the mean, over answers, of its highest Jaccard in one.

    Args:
        bundle: Any bundle.
        answers: The bundles of each answer.

    Returns:
        In [0, 1]; 1 where every answer has this very bundle.
    """
    if not answers:
        return 0.0
    sets: list[ItemSets] = [bundle_sets(bundles) for bundles in answers]
    best = [max((jaccard(bundle.items, other) for other in mine), default=0.0) for mine in sets]
    return sum(best) / len(best)
