"""What `BundleGenerator` predicts, made of what a language model answered."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from routedk.errors import AnswerError
from routedk.programs.naming import NO_ANSWER
from routedk.programs.prompting.answers import ParsedAnswer, read_answer
from routedk.programs.prompting.bundle_adapter import BundleLayout
from routedk.types import Answer, Session


def ask_bundles(predictor: Any, session: Session, request: Mapping[str, Any]) -> dspy.Prediction:
    """Ask a predictor of `GenerateBundles` for one session's bundles.

    Args:
        predictor: What is asked.
        session: The session.
        request: The predictor's arguments: the signature's inputs, demos and config.

    Returns:
        The fields that `BundleGenerator` states.
    """
    try:
        with dspy.context(adapter=BundleLayout()):
            answer = predictor(**request)
    except NO_ANSWER as error:
        return unanswered(error)
    return read_bundles(answer.bundles, session)


def read_bundles(raw: str, session: Session) -> dspy.Prediction:
    """The prediction of an answer; an error in it where it cannot be read."""
    try:
        return _prediction(read_answer(raw, session), raw, None)
    except AnswerError as error:
        return _prediction(ParsedAnswer(), raw, str(error))


def unanswered(error: Exception) -> dspy.Prediction:
    """The prediction where there was no answer."""
    if isinstance(error, AdapterParseError):
        return _prediction(ParsedAnswer(), error.lm_response, "the answer is empty")
    return _prediction(ParsedAnswer(), "", str(error))


def _prediction(read: ParsedAnswer, raw: str, error: str | None) -> dspy.Prediction:
    found = {field.name: getattr(read, field.name) for field in fields(read)}
    return dspy.Prediction(**{**found, "bundles": list(read.bundles)}, raw=raw, error=error)


def named_bundles(named: dspy.Prediction, grouped: Answer) -> dspy.Prediction:
    """The prediction of bundles that were grouped first, then named."""
    bundles = tuple(named.bundles)
    read = ParsedAnswer(bundles=bundles, none=not bundles, dropped=named.dropped)
    prediction = _prediction(read, named.raw, None)
    prediction.confidence, prediction.changed = grouped.confidence, grouped.changed
    return prediction
