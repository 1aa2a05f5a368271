"""Verification: the student says yes or no to one candidate bundle.

A candidate stands as its item lines of the prompt, then the verdict:
``1 Gooseneck Kettle 1L + 3 Coffee Grinder | yes``. The head is given and the verdict is learnt.
Items are named by their words, since a small student does not look titles up by number.
"""

import random
from collections.abc import Callable, Sequence

from dspy.utils.exceptions import LMError

from routedk.adapters.prompts import Tokenizer, end_of_turn
from routedk.errors import SettingError
from routedk.eval.baselines import whole
from routedk.programs.prompting.layout import render_items
from routedk.similarity.dendrogram import session_dendrogram
from routedk.similarity.encoders import default_encoder
from routedk.types import Session

YES, NO = " yes", " no"
MOST_CANDIDATES = 12

Proposals = Callable[[Session], Sequence[frozenset[str]]]


class VerifierError(SettingError, LMError):  # type: ignore[misc]
    """A student that only says yes or no was asked for bundles.

    It is one of DSPy's LM errors, too, so that it passes through ``dspy.LM`` as it is.
    """

    def __init__(self) -> None:
        """The message says what to do."""
        super().__init__(
            "this student was trained to verify (answer form 'verification') and writes no "
            "bundles: train experts of another form"
        )


def verdict_head(session: Session, items: frozenset[str]) -> str:
    """What stands before the verdict on a candidate bundle: its items and a bar."""
    lines = render_items(session).split("\n")
    shown = (line for line, item in zip(lines, session.items, strict=True) if item.id in items)
    return f"{' + '.join(shown)} |"


def encode_verdicts(
    tokenizer: Tokenizer, session: Session, candidates: Sequence[frozenset[str]]
) -> tuple[tuple[tuple[int, ...], int], ...]:
    """The completions of a training row: yes where a candidate is a gold bundle, else no."""
    end, gold = end_of_turn(tokenizer), set(session.gold)

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    lines = []
    for items in candidates:
        given = ids(verdict_head(session, items))
        lines.append(((*given, *ids(YES if items in gold else NO), end), len(given)))
    return tuple(lines)


def title_nodes(session: Session) -> list[frozenset[str]]:
    """The nodes of the dendrogram of a session's titles, by the embedded MiniLM."""
    return session_dendrogram(session, default_encoder()).nodes()


def training_candidates(
    session: Session,
    nodes: Sequence[frozenset[str]],
    *,
    seed: int = 0,
    most: int = MOST_CANDIDATES,
) -> list[frozenset[str]]:
    """What the student learns to judge of one session.

    First its gold bundles and the whole session, then, in turns, nodes of the dendrogram and near
    misses (a gold bundle less one item or with one more), each in a seeded order.

    Args:
        session: With gold.
        nodes: Of the dendrogram of its items.
        seed: Of the choice, where there are more than are taken.
        most: Most candidates, at least 1.

    Returns:
        Distinct sets of at least two items; the same arguments always give the same.
    """
    chance = random.Random(f"{seed}:{session.id}")
    sure = list(dict.fromkeys([*session.gold, *whole(session)]))
    proposed = [node for node in dict.fromkeys(nodes) if node not in sure]
    near = [
        changed
        for bundle in dict.fromkeys(session.gold)
        for item in session.items
        if len(changed := bundle ^ {item.id}) >= 2
    ]
    missed = [items for items in dict.fromkeys(near) if items not in {*sure, *proposed}]
    chance.shuffle(proposed)
    chance.shuffle(missed)
    turns = [
        part[k]
        for k in range(max(len(proposed), len(missed)))
        for part in (proposed, missed)
        if k < len(part)
    ]
    return [*sure, *turns][:most]
