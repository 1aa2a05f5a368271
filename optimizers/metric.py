"""Sessions and scores in DSPy's terms: examples, their metric, and validation kept apart."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from dspy import Example

from routedk.data.knowledge_file import sources_of
from routedk.errors import SettingError
from routedk.eval.matched import matched_f1
from routedk.programs.prompting.layout import render_answer
from routedk.types import KnowledgeBase, Session, bundle_sets

# From a program and sessions to its answers, in the order of the sessions.
Answering: TypeAlias = Callable[[Any, Sequence[Session]], Sequence[Any]]


def as_examples(sessions: Sequence[Session]) -> list[Any]:
    """Turn sessions into DSPy examples with the input ``session``; gold is inside the session.

    Where there is gold, the label ``bundles`` says it as an answer, for optimizers that show
    training examples to a language model.
    """
    return [Example(session=s, **_label(s)).with_inputs("session") for s in sessions]


def _label(session: Session) -> dict[str, str]:
    known = session.bundles is not None
    return {"bundles": render_answer(session, session.bundles or ())} if known else {}


def matched_f1_metric(example: Any, prediction: Any, trace: object = None) -> float:
    """Score one prediction by matched F1, in [0, 1], for DSPy's optimizers and Evaluate."""
    return matched_f1(example.session.gold, bundle_sets(prediction.bundles))


def check_apart(trainset: Sequence[Any], valset: Sequence[Any], knowledge: KnowledgeBase) -> None:
    """Check that no validation session was seen before.

    Args:
        trainset: Examples to learn from.
        valset: Examples to score on.
        knowledge: What was distilled.

    Raises:
        SettingError: A validation session is in the training set, or knowledge was made from it.
    """
    scored = {example.session.id for example in valset}
    for what, names in (
        ("the training set", {example.session.id for example in trainset}),
        ("what the knowledge was made from", sources_of(knowledge)),
    ):
        if both := sorted(scored & names):
            raise SettingError(
                f"{len(both)} validation sessions are in {what}, e.g. {', '.join(both[:5])}: "
                "scores on them would mean nothing (split again, or distill training sessions)"
            )
