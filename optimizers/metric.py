"""Sessions and scores in DSPy's terms: examples and the metric that is optimised."""

from collections.abc import Sequence
from typing import Any

from dspy import Example

from routedk.eval.matched import matched_f1
from routedk.types import Session, bundle_sets


def as_examples(sessions: Sequence[Session]) -> list[Any]:
    """Sessions as DSPy examples with the input ``session``; gold is inside the session."""
    return [Example(session=session).with_inputs("session") for session in sessions]


def matched_f1_metric(example: Any, prediction: Any, trace: object = None) -> float:
    """Matched F1 of one prediction, in [0, 1]: the metric for DSPy's optimizers and Evaluate."""
    return matched_f1(example.session.gold, bundle_sets(prediction.bundles))
