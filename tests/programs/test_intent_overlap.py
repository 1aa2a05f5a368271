import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import dspy
import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping import SimilarIntents
from routedk.programs.intent_overlap import intent_overlap
from routedk.programs.prompting.layout import Message, Prompt
from routedk.programs.usage import metered
from routedk.types import Item, Session
from tests.scripted import scripted_lm

SESSION = Session("s", (Item("a", "lens"), Item("b", "tripod"), Item("c", "mug")))
CANDIDATES = [[("camera",)], [("camera",), ("video", "travel")], []]
SHARES = {
    "1 lens": {"none": 0.19, "camera": 0.81, "video / travel": 0.0},
    "2 tripod": {"none": 0.2, "camera": 0.16, "video / travel": 0.64},
    "3 mug": {"none": 1.0, "camera": 0.0, "video / travel": 0.0},
}


class TableScorer:
    """Scores by the shares above, times a constant per item."""

    def score_lines(
        self, messages: Sequence[Message], lines: Sequence[str], texts: Sequence[str]
    ) -> tuple[NDArray[np.float64], int]:
        assert [*messages] == [{"role": "user", "content": "prompt"}]
        shares = np.array([[SHARES[line][text] for text in texts] for line in lines])
        return np.log(np.maximum(shares, 1e-300)) - [[9.0], [1.0], [0.0]], 40


def test_overlap_is_the_root_of_shares_of_each_intent_summed_none_left_out() -> None:
    prompt = Prompt(({"role": "user", "content": "prompt"},), tuple(SHARES))
    camera_alone = [[("camera",)], [("camera",)], []]
    with metered() as meter:
        both = intent_overlap(CANDIDATES, prompt, TableScorer())
    np.testing.assert_allclose(both, [[1, 0.36, 0], [0.36, 1, 0], [0, 0, 1]], atol=1e-9)
    one = intent_overlap(camera_alone, prompt, TableScorer())
    camera = np.sqrt(0.81 * 0.16 / (0.2 + 0.16))
    np.testing.assert_allclose(one, [[1, camera, 0], [camera, 1, 0], [0, 0, 1]], atol=1e-9)
    assert (meter.usage.calls, meter.usage.input_tokens) == (1, 40)


def test_the_program_groups_by_it_and_counts_its_cost() -> None:
    lm, engine = scripted_lm(lambda messages: "Thought: 1 camera; 2 video; 3 tea")
    asked = []

    def score_lines(
        messages: list[Message], lines: list[str], texts: list[str]
    ) -> tuple[NDArray[np.float64], int]:
        asked.append(messages)
        return np.zeros((len(lines), len(texts))), 40

    engine.score_lines = score_lines  # type: ignore[attr-defined]
    program = BundleGenerator(
        grouping=SimilarIntents(weight=1.0, threshold=0.3, fall_back=False, by_likelihood=True)
    )
    with dspy.context(lm=lm), metered() as meter:
        (bundle,) = program(session=SESSION).bundles
    assert bundle.item_ids == ("a", "b", "c"), "all alike: a quarter of each is none"
    assert asked == [program.prompt(SESSION).messages]
    assert meter.usage.calls == 2


def test_a_task_gets_the_same_answer() -> None:
    lm, engine = scripted_lm(lambda messages: "Thought: 1 camera; 2 video; 3 tea")
    engine.score_lines = lambda *asked: (np.zeros((3, 4)), 40)  # type: ignore[attr-defined]
    grouping = SimilarIntents(weight=1.0, threshold=0.3, by_likelihood=True)
    with dspy.context(lm=lm):
        answer = asyncio.run(BundleGenerator(grouping=grouping).acall(session=SESSION))
    assert len(answer.bundles) == 1


def test_a_model_that_tells_no_likelihoods_is_refused() -> None:
    lm, engine = scripted_lm(lambda messages: "Thought: 1 camera; 2 video; 3 tea")
    grouping = SimilarIntents(weight=1.0, threshold=0.3, by_likelihood=True)
    program = BundleGenerator(grouping=grouping)
    asks: list[Callable[[], Any]] = [
        lambda: program(session=SESSION),
        lambda: asyncio.run(program.acall(session=SESSION)),
    ]
    for ask in asks:
        with dspy.context(lm=lm), pytest.raises(SettingError, match="only a student in this proc"):
            ask()
    assert not engine.requests, "refused before it was asked anything"
