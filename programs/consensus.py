"""Consensus: several answers of one generator, and the one that they agree on most."""

import asyncio
from collections.abc import Sequence
from typing import Any

import dspy

from routedk.errors import SettingError
from routedk.eval.matched import matched_f1
from routedk.eval.overlap import jaccard
from routedk.programs.batch import call_all
from routedk.programs.teachers.named_lm import refuses_temperature
from routedk.types import Bundle, Session, bundle_sets


class Consensus(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Samples n answers of a generator and returns the one that agrees most with the others.

    Works around a ``dspy.Module`` that takes ``session=`` and answers with ``bundles``, and with
    any ``dspy.LM``. Answers that could not be read have no vote; where none could, there are no
    bundles, and ``error`` is the first one's. The prediction has ``bundles``, ``confidences`` (for
    each bundle its mean agreement, see `confidence`), ``votes`` (how many answers could be read),
    ``none``, ``error`` and ``answers`` (all predictions that were sampled).

    Args:
        generator: What answers; it is not changed.
        n: Number of answers, at least 1. The first is asked for as the generator is set, the
            others are sampled at the temperature.
        temperature: Of the others, above 0 and at most 2; models that refuse one have their own.

    Raises:
        SettingError: A value is not allowed; when called: no LM is configured.

    Source: minimum Bayes risk decoding with the metric as its utility, Kumar and Byrne, 2004
    (aclanthology.org/N04-1022).
    """

    def __init__(self, generator: Any, *, n: int = 8, temperature: float = 0.7) -> None:
        """Check and keep the settings."""
        super().__init__()
        if n < 1:
            raise SettingError(f"n={n}: it must be at least 1")
        if not 0 < temperature <= 2:
            raise SettingError(f"temperature={temperature}: it must be above 0 and at most 2")
        self.generator = generator
        self.n = n
        self.temperature = temperature

    def forward(self, session: Session) -> dspy.Prediction:
        """Generate the bundles of one session.

        Args:
            session: The session; its gold bundles are not looked at.
        """
        programs = [self.generator, *map(self._sampling, range(1, self.n))]
        # All at once, so that a batching LM computes them as one batch.
        answers = call_all(lambda ask: ask(session=session), programs, num_threads=self.n)
        read = [answer.bundles for answer in answers if answer.get("error") is None]
        chosen = central_prediction(answers)
        bundles = list(chosen.bundles) if read else []
        return dspy.Prediction(
            bundles=bundles,
            confidences=[confidence(bundle, read) for bundle in bundles],
            votes=len(read),
            none=bool(read) and not bundles,
            error=chosen.get("error"),
            answers=answers,
        )

    async def aforward(self, session: Session) -> dspy.Prediction:
        """As `forward`, on a thread of its own."""
        return await asyncio.to_thread(self.forward, session)

    def _sampling(self, number: int) -> Any:
        """A copy of the generator that samples; its calls differ from those of other copies."""
        program = self.generator.deepcopy()
        for predictor in program.predictors():
            lm = predictor.lm or dspy.settings.lm
            if lm is None:
                raise SettingError("no language model: dspy.configure(lm=...) or set_lm first")
            seed = lm.kwargs.get("seed")
            seeds = {} if seed is None else {"seed": seed + number}
            fixed = isinstance(lm.engine, str) and refuses_temperature(lm.model)
            temperature = None if fixed else self.temperature
            # The rollout's number is part of the key of DSPy's cache.
            predictor.lm = lm.copy(temperature=temperature, rollout_id=number, **seeds)
        return program


def central_prediction(predictions: Sequence[Any]) -> Any:
    """Return the prediction that agrees most with the others, for ``dspy.Ensemble(reduce_fn=)``.

    It has the highest mean matched F1 against all, and is the first of equals. Predictions that
    could not be read have no vote; where none could, it is the first. (``dspy.majority`` counts
    one field as text, and bundles are none.)

    Args:
        predictions: Of one session, at least one, each with ``bundles``.
    """
    votes = [prediction for prediction in predictions if prediction.get("error") is None]
    sets = [bundle_sets(prediction.bundles) for prediction in votes]
    utilities = [sum(matched_f1(other, mine) for other in sets) for mine in sets]
    # Rounding keeps ties ties, whatever the order of a sum.
    places = range(len(votes))
    best = max(places, key=lambda place: round(utilities[place], 9), default=None)
    return predictions[0] if best is None else votes[best]


def confidence(bundle: Bundle, answers: Sequence[Sequence[Bundle]]) -> float:
    """How far answers agree on a bundle: the mean, over answers, of its highest Jaccard in one.

    Args:
        bundle: Any bundle.
        answers: The bundles of each answer, at least one answer.

    Returns:
        In [0, 1]; 1 where every answer has this very bundle.
    """
    sets = [bundle_sets(bundles) for bundles in answers]
    best = [max((jaccard(bundle.items, other) for other in mine), default=0.0) for mine in sets]
    return sum(best) / len(best)
