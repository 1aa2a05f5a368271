"""Engines over the tiny students, and what they are asked."""

from collections.abc import Iterator, Sequence
from typing import Any

import dspy
import pytest

from routedk.adapters.engine.batcher import Batcher
from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.engine.generator import Generator
from routedk.adapters.engine.grammar import BundleList, ItemIntent
from routedk.adapters.engine.writing import Writing
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import Student
from routedk.adapters.training.examples import encode_head
from routedk.programs.prompting.layout import build_prompt
from routedk.types import Session
from tests.adapters.conftest import copy_of, randomise

FORMS = ("bundles", "thought, then bundles", "item-intents")


class CountingEngine(StudentEngine):
    """Keeps the jobs of each of its batches."""

    def __init__(self, student: Any, max_batch: int = 16, max_queue: int = 1024, **kwargs: Any):
        super().__init__(student, **kwargs)
        self.batches: list[list[Writing]] = []
        self.batcher = Batcher(self.write, max_batch, max_queue)

    def write(self, jobs: Sequence[Writing]) -> Any:
        self.batches.append(list(jobs))
        return self.generator.write(jobs)


@pytest.fixture(params=FORMS)
def engine(request: pytest.FixtureRequest, shared: RoutedStudent) -> Iterator[CountingEngine]:
    """An engine over the experts of the module, for each answer form."""
    found = CountingEngine(shared, form=request.param)
    yield found
    found.close()


@pytest.fixture
def intents_engine(shared: RoutedStudent) -> Iterator[CountingEngine]:
    """An engine that writes item intents."""
    found = CountingEngine(shared, form="item-intents")
    yield found
    found.close()


def lm_of(engine: StudentEngine) -> dspy.LM:
    """The engine's ``dspy.LM``."""
    return engine_lm(engine)


def writing(tokenizer: Any, session: Session, form: str = "item-intents", **kwargs: Any) -> Writing:
    """The job that asks for a session's answer in this form, or for ``text``."""
    asked = build_prompt(session)
    prompt = encode_prompt(tokenizer, asked.messages, asked.items)
    if form == "text":
        return Writing(prompt=prompt, **{"limit": 9, **kwargs})
    if form == "item-intents":
        heads = tuple(encode_head(tokenizer, f"{line} |") for line in asked.items)
        return Writing(prompt=prompt, heads=heads, grammar=ItemIntent(), limit=12, **kwargs)
    grammar = BundleList(len(asked.items), thinks=form != "bundles")
    return Writing(prompt=prompt, grammar=grammar, limit=40, **kwargs)


def texts(generator: Generator, jobs: Sequence[Writing]) -> list[list[tuple[int, ...]]]:
    """The tokens of all that is written."""
    found = generator.write(jobs)
    return [[tuple(line.tokens) for line in lines] for lines in found]


def routed_of(
    student: Student, fusion: str, experts_from: str = "start", *, exact: bool = False
) -> RoutedStudent:
    """Random experts under a random fusion; exact in float64."""
    base = copy_of(student)
    if exact:
        base.model.double()
    settings = ExpertSettings(r=4, lora_alpha=8, layers=2, experts_from=experts_from)
    routed = randomise(RoutedStudent(base, settings, fusion))
    routed.freeze()
    return routed
