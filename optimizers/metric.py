"""Sessions and scores in DSPy's terms: examples and the metric that is optimised."""

from collections.abc import Sequence
from typing import Any

from dspy import Example

from routedk.eval.matched import matched_f1
from routedk.programs.prompting.layout import render_answer
from routedk.types import Session, bundle_sets


def as_examples(sessions: Sequence[Session]) -> list[Any]:
    """Sessions as DSPy examples with the input ``session``; gold is inside the session.

    Where there is gold, the label ``bundles`` says it as an answer, for optimizers that show
    training examples to a language model.
    """
    return [Example(session=s, **_label(s)).with_inputs("session") for s in sessions]


def _label(session: Session) -> dict[str, str]:
    known = session.bundles is not None
    return {"bundles": render_answer(session, session.bundles or ())} if known else {}


def matched_f1_metric(example: Any, prediction: Any, trace: object = None) -> float:
    """Matched F1 of one prediction, in [0, 1]: the metric for DSPy's optimizers and Evaluate."""
    return matched_f1(example.session.gold, bundle_sets(prediction.bundles))
