from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

import dspy
import numpy as np
import pytest
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


def _session(name: str, gold: tuple[Bundle, ...], last: str = "c") -> Session:
    items = tuple(Item(letter, f"thing {letter}") for letter in ("a", "b", last))
    return Session(name, items, gold)


AB, AC = (Bundle(("a", "b")),), (Bundle(("a", "c")),)


def _compile(
    script: Callable[[list[dict[str, str]]], str], sessions: Sequence[Session], **engine: Any
) -> BundleGenerator:
    lm, scripted = scripted_lm(script)
    vars(scripted).update(engine)
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


@pytest.mark.parametrize(("without", "falls_back"), [(2, True), (10, False)])
def test_few_sessions_without_a_bundle_do_not_cost_others_theirs(
    without: int, falls_back: bool
) -> None:
    """Where there is none the intents are unlike, and the session would be whole."""

    def answer(messages: list[dict[str, str]]) -> str:
        alone = "thing x" in messages[-1]["content"]
        return f"Thought: 1 camera gear; 2 {'tea' if alone else 'camera things'}; 3 other"

    bundled = [_session(f"s{k}", AB) for k in range(40 - without)]
    compiled = _compile(answer, [*bundled, *(_session(f"n{k}", (), "x") for k in range(without))])
    assert compiled.grouping is not None
    assert compiled.grouping.fall_back is falls_back


class KindEncoder:
    """Any two titles are equally far apart, each pair alike in another dimension."""

    titles: ClassVar = {"camera": (1, 1, 0), "tripod": (1, 0, 1), "pot": (0, 1, 1)}

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        rows = [self.titles.get(text, (0, 0, 0)) for text in texts]
        return np.array(rows, dtype=np.float32) / 2**0.5


def test_training_gold_says_which_titles_go_together(tmp_path: Path) -> None:
    """No intent is read, and by the titles no two items are nearer than others."""

    def sessions(numbers: range) -> list[dspy.Example]:
        orders = list(permutations(KindEncoder.titles))
        found = []
        for number in numbers:
            items = tuple(Item(title, title) for title in orders[number % 6])
            found.append(Session(f"s{number}", items, (Bundle(("camera", "tripod")),)))
        return as_examples(found)

    lm, _ = scripted_lm(lambda messages: "Thought: 1 none; 2 none; 3 none")
    with dspy.context(lm=lm):
        search = GroupingSearch(encoder=KindEncoder(), num_threads=1)
        sets = {"trainset": sessions(range(600)), "valset": sessions(range(600, 630))}
        compiled = search.compile(BundleGenerator(), **sets)
        alone = search.compile(BundleGenerator(), trainset=sets["valset"])
        scored = search.compile(BundleGenerator(), trainset=sets["valset"], valset=sets["valset"])
    assert compiled.grouping is not None
    assert compiled.grouping.pairs is not None
    assert compiled.trials[-1]["grouping_f1"] == 1.0
    compiled.save(tmp_path / "program.json")
    assert load_program(tmp_path / "program.json").grouping == compiled.grouping
    for other in (alone, scored):
        assert other.grouping is None or other.grouping.pairs is None, "learned of what is scored"


def test_likelihoods_are_used_where_the_model_tells_them_and_they_score_higher() -> None:
    """No two intents are equal, but the second item would as readily have the first one's."""

    def score_lines(
        messages: object, lines: Sequence[str], texts: Sequence[str]
    ) -> tuple[NDArray[np.float64], int]:
        assert list(lines) == ["1 thing a", "2 thing b", "3 thing c"]
        assert list(texts) == ["none", "one thing", "another", "tea"]
        shares = [[0.1, 0.5, 0.4, 0.0], [0.1, 0.4, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0]]
        return np.log(np.maximum(shares, 1e-30)), 7

    compiled = _compile(
        lambda messages: "Thought: 1 one thing; 2 another; 3 tea",
        [_session(f"s{k}", AB) for k in range(3)],
        score_lines=score_lines,
    )
    assert compiled.grouping is not None
    assert compiled.grouping.by_likelihood
    assert compiled.trials[-1]["grouping_f1"] == 1.0
