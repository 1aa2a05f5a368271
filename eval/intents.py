"""How good predicted intents are: similar to the gold intent, and short."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from routedk.eval.bootstrap import Interval, Means
from routedk.eval.protocols import UNCOUNTED, Score, matched_pairs
from routedk.similarity.encoders import TitleEncoder, meanings
from routedk.types import Answer, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentScores:
    """Scores of intents.

    Args:
        similarity: Cosine similarity (at least 0) of a predicted intent to the gold intent of the
            bundle it is matched with.
        length: Number of words of a predicted intent.
        pairs: Matched pairs of bundles that both have an intent.
    """

    similarity: Interval
    length: Interval
    pairs: int


def score_intents(
    sessions: Sequence[Session],
    answers: Sequence[Answer],
    encoder: TitleEncoder,
    means: Means,
) -> IntentScores | None:
    """Score intents: each session first, then the mean over sessions that have any.

    Bundles are matched as in the `matched` protocol. A bundle without a match, or without an
    intent on either side, says nothing about similarity.

    Args:
        sessions: Sessions with gold bundles.
        answers: One for each session, in their order.
        encoder: Encoder of intents.
        means: Gives the means and their intervals.

    Returns:
        None when no predicted bundle has an intent.
    """
    predicted = [answer.bundles for answer in answers]
    lengths = [
        [len(b.intent.split()) for b in bundles if b.intent.strip()] for bundles in predicted
    ]
    if not any(lengths):
        return None
    pairs: list[list[tuple[str, str]]] = []
    for session, bundles in zip(sessions, predicted, strict=True):
        matches = matched_pairs(session.gold, [bundle.items for bundle in bundles])
        texts = [((session.bundles or ())[g].intent, bundles[p].intent) for g, p, _ in matches]
        pairs.append([pair for pair in texts if all(text.strip() for text in pair)])
    # One call for all: an encoder is much faster on many texts than on few.
    encoder.encode([text for some in pairs for pair in some for text in pair])
    similarities = [[_similarity(encoder, *pair) for pair in some] for some in pairs]
    rows = [(_mean(a), _mean(b)) for a, b in zip(similarities, lengths, strict=True)]
    similarity, length = means(rows)
    return IntentScores(similarity=similarity, length=length, pairs=sum(map(len, pairs)))


def _similarity(encoder: TitleEncoder, gold: str, predicted: str) -> float:
    left, right = meanings([gold, predicted], encoder)
    return min(1.0, max(0.0, float(left @ right)))


def _mean(values: Sequence[float]) -> Score:
    return Score(fmean(values)) if values else UNCOUNTED
