from collections.abc import Callable, Sequence
from pathlib import Path

import dspy
import numpy as np
from numpy.typing import NDArray

from routedk.optimizers.grouping_search import GroupingSearch
from routedk.optimizers.metric import as_examples
from routedk.programs.generator import BundleGenerator, load_program
from routedk.types import Bundle, Item, Session
from tests.scripted import scripted_lm

VECTORS = {"camera gear": (1.0, 0.0), "camera things": (0.9, 0.436), "tea": (0.0, 1.0)}


class TableEncoder:
    """Knows the intents above; titles are orthogonal to everything."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), 2 + 10), dtype=np.float32)
        for row, text in enumerate(texts):
            if text in VECTORS:
                rows[row, :2] = VECTORS[text]
            else:
                rows[row, 2 + sum(text.encode()) % 10] = 1.0
        return rows


def _session(name: str, gold: tuple[Bundle, ...]) -> Session:
    items = tuple(Item(letter, f"thing {letter}") for letter in "abc")
    return Session(name, items, gold)


AB, AC = (Bundle(("a", "b")),), (Bundle(("a", "c")),)


def _compile(
    script: Callable[[list[dict[str, str]]], str], sessions: Sequence[Session]
) -> BundleGenerator:
    lm, scripted = scripted_lm(script)
    with dspy.context(lm=lm):
        compiled = GroupingSearch(encoder=TableEncoder(), num_threads=2).compile(
            BundleGenerator(), trainset=[], valset=as_examples(sessions)
        )
    assert len(scripted.requests) == len(sessions)
    return compiled


def _three(answer: str, *golds: tuple[Bundle, ...]) -> BundleGenerator:
    """Compile with three sessions that get the same answer."""
    sessions = [_session(f"s{k}", golds[k % len(golds)]) for k in range(3)]
    return _compile(lambda messages: answer, sessions)


def test_similar_intents_are_grouped_where_that_scores_higher(tmp_path: Path) -> None:
    compiled = _three("Thought: 1 camera gear; 2 camera things; 3 tea", AB)
    assert compiled.grouping is not None
    assert compiled.trials[-1]["equal_intents_f1"] == 0.0
    assert compiled.trials[-1]["grouping_f1"] == 1.0
    compiled.save(tmp_path / "program.json")
    assert load_program(tmp_path / "program.json").grouping == compiled.grouping


def test_equal_intents_stay_where_nothing_is_better() -> None:
    compiled = _three("Thought: 1 camera gear; 2 camera gear; 3 tea", AB)
    assert compiled.grouping is None
    assert compiled.trials[-1]["grouping_f1"] == 1.0


def test_a_gain_that_may_be_chance_changes_nothing() -> None:
    """Similar intents win two sessions and lose the one without a bundle."""
    assert _three("Thought: 1 camera gear; 2 camera things; 3 tea", AB, AB, ()).grouping is None


def test_answers_in_lines_are_left_alone() -> None:
    assert _three("1 2 | camera", AC).grouping is None
