"""How much the possible intents of two items overlap, by the student's likelihoods."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

import dspy
import numpy as np
from numpy.typing import NDArray

from routedk.programs.prompting.item_intents import NO_INTENT, ItemCandidates, render_intents
from routedk.programs.prompting.layout import Message, Prompt
from routedk.programs.usage import Usage, spend


class LineScorer(Protocol):
    """An engine that scores likelihoods, as the student's does."""

    def score_lines(
        self, messages: Sequence[Message], lines: Sequence[str], texts: Sequence[str]
    ) -> tuple[NDArray[np.float64], int]:
        """The likelihood of each text as the rest of each line of an item thought.

        Args:
            messages: The prompt.
            lines: Item lines, as the prompt has them.
            texts: Intents, as `render_intents` writes them.

        Returns:
            Log-likelihoods, *shape* (lines, texts), and the tokens that were read for them.
        """
        ...


def line_scorer(predictor: Any) -> LineScorer | None:
    """The engine of the language model that a predictor would ask now, if it scores likelihoods."""
    engine: Any = getattr(predictor.lm or dspy.settings.lm, "engine", None)
    return engine if hasattr(engine, "score_lines") else None


def intent_overlap(
    candidates: ItemCandidates, prompt: Prompt, scorer: LineScorer
) -> NDArray[np.float64]:
    """The Bhattacharyya coefficient of what the student might name for each two items.

    What may be named is every intent among the candidates of any item, and that an item has no
    intent; how probable each is for an item is the student's likelihood of it there, over those of
    all. The coefficient sums the square root of the product of two items' probabilities over the
    intents; having none in common is no overlap. A candidate counts little where the student would
    have named another item's almost as readily.

    Args:
        candidates: Of each item, in item order.
        prompt: What they answer.
        scorer: Of the student that wrote them.

    Returns:
        In [0, 1], 1 on the diagonal. *Shape:* (items, items).
    """
    from scipy.special import softmax

    named = [render_intents(one) for one in chain.from_iterable(candidates)]
    texts = [*dict.fromkeys([NO_INTENT, *named])]
    totals_NM, tokens = scorer.score_lines(prompt.messages, prompt.items, texts)
    spend(Usage(calls=1, input_tokens=tokens))
    roots_NM = np.sqrt(softmax(totals_NM, axis=1))[:, 1:]
    overlap: NDArray[np.float64] = np.clip(roots_NM @ roots_NM.T, 0.0, 1.0)
    np.fill_diagonal(overlap, 1.0)
    return overlap
