"""Sessions and scores in DSPy's terms: examples, metrics, and the check of a validation set."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from dspy import Example

from routedk.data.knowledge_file import sources_of
from routedk.errors import SettingError
from routedk.eval.protocols import matched_f1, matched_pairs
from routedk.programs.prompting.layout import render_answer
from routedk.similarity.encoders import TitleEncoder, meanings
from routedk.types import Bundle, KnowledgeBase, Session, bundle_sets

# Maps a program and sessions to its answers, in the order of the sessions.
Answering: TypeAlias = Callable[[Any, Sequence[Session]], Sequence[Any]]


def as_examples(sessions: Sequence[Session]) -> list[Any]:
    """Turn sessions into DSPy examples with the input ``session``; gold is inside the session.

    If there is gold, the label ``bundles`` holds it in the form of an answer, for optimizers that
    show training examples to a language model.
    """
    return [Example(session=s, **_label(s)).with_inputs("session") for s in sessions]


def _label(session: Session) -> dict[str, str]:
    known = session.bundles is not None
    return {"bundles": render_answer(session, session.bundles or ())} if known else {}


def matched_f1_metric(example: Any, prediction: Any, trace: object = None) -> float:
    """Score one prediction by matched F1, in [0, 1], for DSPy's optimizers and Evaluate."""
    return matched_f1(example.session.gold, bundle_sets(prediction.bundles))


def intent_similarity(encoder: TitleEncoder) -> Callable[[Session, Sequence[Bundle]], float]:
    """Make a score for named bundles: how similar their intents are to the gold intents.

    Args:
        encoder: Embeds intents.

    Returns:
        A function of a session with gold and its bundles: the mean cosine, each at least 0, over
        matched bundles with a gold intent; 0 if there are none. Higher is better.
    """

    def score(session: Session, bundles: Sequence[Bundle]) -> float:
        gold = session.bundles or ()
        matches = matched_pairs(session.gold, bundle_sets(bundles))
        pairs = [(gold[g].intent, bundles[p].intent) for g, p, _ in matches if gold[g].intent]
        cosines = [float(np.prod(meanings(pair, encoder), axis=0).sum()) for pair in pairs]
        return sum(max(0.0, cosine) for cosine in cosines) / max(1, len(pairs))

    return score


def check_apart(trainset: Sequence[Any], valset: Sequence[Any], knowledge: KnowledgeBase) -> None:
    """Check that no validation session was trained on or distilled from.

    Args:
        trainset: Examples to learn from.
        valset: Examples to score on.
        knowledge: The distilled knowledge.

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
