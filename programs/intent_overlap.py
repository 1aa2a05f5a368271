"""How much the intents overlap that a student might name for two items, by its likelihoods."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import dspy
import numpy as np
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.programs.prompting.item_intents import NO_INTENT, Readings, render_labels
from routedk.programs.prompting.layout import Message, render_items
from routedk.programs.usage import Usage, spend
from routedk.types import Session


@dataclass(frozen=True, slots=True)
class LineScores:
    """How likely texts are to stand after lines of a thought.

    Args:
        totals: Log-likelihoods, *shape* (lines, texts).
        tokens: Tokens that were read for them.
        cached: Whether they were read before, and kept.
    """

    totals: NDArray[np.float64]
    tokens: int
    cached: bool = False


class LineScorer(Protocol):
    """An engine that tells likelihoods, as the student's does."""

    def score_lines(
        self, messages: Sequence[Message], lines: Sequence[str], texts: Sequence[str]
    ) -> LineScores:
        """The likelihood of each text as the rest of each line of an item thought.

        Args:
            messages: The prompt.
            lines: Item lines, as the prompt has them.
            texts: Intents, as `render_labels` writes them.
        """
        ...


def tells_likelihoods(predictor: Any) -> bool:
    """Whether the language model that a predictor would ask now tells likelihoods."""
    return hasattr(getattr(_lm(predictor), "engine", None), "score_lines")


def current_scorer(predictor: Any) -> LineScorer:
    """The scorer of the language model that a predictor would ask now.

    Raises:
        SettingError: The model tells no likelihoods.
    """
    if not tells_likelihoods(predictor):
        raise SettingError(
            "this program compares intents by their likelihood, which only a student in this "
            "process tells: run it under student_lm(...), or compile it for this language model"
        )
    lm = _lm(predictor)
    scorer: LineScorer = _CachedScorer(lm) if lm.cache else lm.engine
    return scorer


def _lm(predictor: Any) -> Any:
    return predictor.lm or dspy.settings.lm


class _CachedScorer:
    """Keeps likelihoods where DSPy keeps answers, under the name of the language model."""

    def __init__(self, lm: Any) -> None:
        self._lm = lm

    def score_lines(
        self, messages: Sequence[Message], lines: Sequence[str], texts: Sequence[str]
    ) -> LineScores:
        """See `LineScorer`."""
        asked = {
            "model": self._lm.model,
            "messages": list(messages),
            "lines": list(lines),
            "texts": list(texts),
        }
        if kept := dspy.cache.get(asked):
            totals = np.frombuffer(kept["totals"]).reshape(len(lines), len(texts))
            return LineScores(totals, kept["tokens"], cached=True)
        found: LineScores = self._lm.engine.score_lines(messages, lines, texts)
        dspy.cache.put(asked, {"totals": found.totals.tobytes(), "tokens": found.tokens})
        return found


def intent_overlaps(
    session: Session,
    answers: Sequence[Readings],
    messages: Sequence[Message],
    scorer: LineScorer,
) -> list[NDArray[np.float64]]:
    """The Bhattacharyya coefficient of what the student might name for each two items.

    All that an answer reads the session's items as, and that an item has no intent, is what may be
    named; how probable each is for an item is the student's likelihood of it there, over those of
    all. The coefficient sums the square root of the product of two items' probabilities over the
    intents; having none in common is no overlap. What an item was read as counts little where the
    student would have named another's reading almost as readily.

    Args:
        session: The session.
        answers: The readings of each item, in item order, of each answer; one or more. Their
            likelihoods are asked for together.
        messages: The prompt that they answer.
        scorer: Of the student that wrote them.

    Returns:
        For each answer a matrix in [0, 1], 1 on the diagonal. *Shape:* (items, items).
    """
    from scipy.special import softmax

    named = [
        dict.fromkeys([NO_INTENT, *(render_labels(one) for one in chain.from_iterable(answer))])
        for answer in answers
    ]
    places = {text: place for place, text in enumerate(dict.fromkeys(chain(*named)))}
    found = scorer.score_lines(messages, render_items(session).split("\n"), list(places))
    spend(Usage(calls=1, input_tokens=found.tokens, cached=int(found.cached)))
    overlaps = []
    for texts in named:
        totals_NM = found.totals[:, [places[text] for text in texts]]
        roots_NM = np.sqrt(softmax(totals_NM, axis=1))[:, 1:]
        overlap: NDArray[np.float64] = np.clip(roots_NM @ roots_NM.T, 0.0, 1.0)
        np.fill_diagonal(overlap, 1.0)
        overlaps.append(overlap)
    return overlaps
