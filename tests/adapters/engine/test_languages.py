"""Intents in any language, by a student that is made to write them token by token."""

from dataclasses import replace

import dspy
import pytest
import torch
from torch import Tensor

from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.prompts import end_of_turn
from routedk.adapters.student import Student
from routedk.programs.naming import BundleNamer
from routedk.programs.prompting.item_intents import clean_intent
from routedk.types import Bundle, Item, Session
from tests.adapters.conftest import copy_of
from tests.languages import LANGUAGES


class Dictated(torch.nn.Module):
    """Instead of ``lm_head``: the next token of a text has the highest score."""

    def __init__(self, tokens: list[int], size: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.size = size

    def forward(self, hidden: Tensor) -> Tensor:
        scores = torch.zeros(len(hidden), self.size)
        scores[:, self.tokens.pop(0)] = 1.0
        return scores


def named(student: Student, text: str, titles: tuple[str, ...]) -> tuple[str, str]:
    """What a student that would write this states, and the intent of a bundle of these titles."""
    writes = copy_of(student)
    tokens = student.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
    dictated = Dictated([*tokens, end_of_turn(student.tokenizer)], len(student.tokenizer))
    writes.model.lm_head = dictated
    engine = StudentEngine(replace(writes))
    items = tuple(Item(str(k), title) for k, title in enumerate(titles))
    bundle = Bundle(tuple(item.id for item in items))
    with dspy.context(lm=engine_lm(engine)):
        found = BundleNamer()(Session("s", items), [bundle])
    engine.close()
    assert not dictated.tokens, "it was cut off"
    return found.raw, found.bundles[0].intent


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_written_comes_back_whole(loaded: Student, language: str) -> None:
    spoken = LANGUAGES[language]
    intent = clean_intent(spoken.intents[0])
    assert named(loaded, intent, spoken.camera) == (f"intent: {intent}", intent)


def test_the_longest_intents_are_not_cut_off(loaded: Student) -> None:
    for character in "b機क📷":
        intent = character * 39
        assert named(loaded, intent, ("x", "y"))[0] == f"intent: {intent}"
