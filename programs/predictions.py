"""The predictions of `BundleGenerator`, made from what a language model answered."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from routedk.errors import AnswerError
from routedk.eval.protocols import matched_f1
from routedk.programs.naming import NO_ANSWER
from routedk.programs.prompting.answers import ParsedAnswer, read_answer
from routedk.programs.prompting.bundle_adapter import BundleLayout
from routedk.types import Answer, Session, bundle_sets


def ask_bundles(predictor: Any, session: Session, request: Mapping[str, Any]) -> dspy.Prediction:
    """Ask a predictor of `GenerateBundles` for one session's bundles.

    Args:
        predictor: The predictor to ask.
        session: The session.
        request: The predictor's arguments: the signature's inputs, demos and config.

    Returns:
        A prediction with the fields listed in `BundleGenerator`.
    """
    try:
        with dspy.context(adapter=BundleLayout()):
            answer = predictor(**request)
    except NO_ANSWER as error:
        return unanswered(error)
    return read_bundles(answer.bundles, session)


def read_bundles(raw: str, session: Session) -> dspy.Prediction:
    """The prediction for an answer; its ``error`` says why if the answer cannot be read."""
    try:
        return _prediction(read_answer(raw, session), raw, None)
    except AnswerError as error:
        return _prediction(ParsedAnswer(), raw, str(error))


def unanswered(error: Exception) -> dspy.Prediction:
    """The prediction for a call without an answer."""
    if isinstance(error, AdapterParseError):
        return _prediction(ParsedAnswer(), error.lm_response, "the answer is empty")
    return _prediction(ParsedAnswer(), "", str(error))


def _prediction(read: ParsedAnswer, raw: str, error: str | None) -> dspy.Prediction:
    found = {field.name: getattr(read, field.name) for field in fields(read)}
    return dspy.Prediction(**{**found, "bundles": list(read.bundles)}, raw=raw, error=error)


def named_bundles(named: dspy.Prediction, grouped: Answer) -> dspy.Prediction:
    """The prediction for bundles that were grouped first, then named."""
    bundles = tuple(named.bundles)
    read = ParsedAnswer(bundles=bundles, none=not bundles, dropped=named.dropped)
    prediction = _prediction(read, named.raw, None)
    prediction.confidence, prediction.changed = grouped.confidence, grouped.changed
    return prediction


def central_prediction(predictions: Sequence[Any]) -> Any:
    """Return the prediction that agrees most with the others, for ``dspy.Ensemble(reduce_fn=)``.

    It has the highest mean matched F1 against all; the first one wins ties. Predictions that could
    not be read have no vote; if none could be read, the first is returned. (``dspy.majority``
    counts one field as text, which bundles are not.)

    Args:
        predictions: Predictions for one session, at least one, each with ``bundles``.
    """
    votes = [prediction for prediction in predictions if prediction.get("error") is None]
    sets = [bundle_sets(prediction.bundles) for prediction in votes]
    utilities = [sum(matched_f1(other, mine) for other in sets) for mine in sets]
    # Rounding keeps ties ties, whatever the order of summation.
    places = range(len(votes))
    best = max(places, key=lambda place: round(utilities[place], 9), default=None)
    return predictions[0] if best is None else votes[best]
