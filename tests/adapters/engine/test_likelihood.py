from typing import Any

import numpy as np
import pytest
import torch

from routedk.adapters.engine import likelihood
from routedk.adapters.engine.engine import StudentEngine
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import Student
from routedk.adapters.training.examples import encode_head
from routedk.programs.prompting.layout import build_prompt
from routedk.types import Session
from tests.adapters.conftest import copy_of
from tests.adapters.engine.conftest import routed_of

TEXTS = ("brewing tea", "none", "desk setup / brewing tea", "rain")


@pytest.fixture(scope="module", params=["plain", "softmax", "single:rule", "sparsegen"])
def engine(request: pytest.FixtureRequest, loaded: Student) -> StudentEngine:
    student: RoutedStudent | Student = copy_of(loaded)
    if request.param == "plain":
        student.model.double()  # Else rounding alone is about 1e-4.
    else:
        experts_from = "start" if request.param == "single:rule" else "session"
        student = routed_of(loaded, request.param, experts_from, exact=True)
    return StudentEngine(student)


def alone(engine: StudentEngine, session: Session, line: str, text: str) -> float:
    """One text by one plain forward pass: no tree, no cache, no padding."""
    generator, asked = engine.generator, build_prompt(session)
    prompt = encode_prompt(generator.tokenizer, asked.messages, asked.items)
    tail = generator.tokenizer(f" {text}", add_special_tokens=False)["input_ids"] + [
        generator.token_filter.end
    ]
    ids = [*prompt.ids, *encode_head(generator.tokenizer, line), *tail]
    gating: Any = generator.prepare([likelihood.Tree(0, prompt, ())])
    with torch.no_grad(), gating([0]):
        logs = generator.base.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    places = range(len(ids) - len(tail) - 1, len(ids) - 1)
    return float(sum(logs[place, token] for place, token in zip(places, tail, strict=True)))


def test_texts_score_what_they_score_alone(engine: StudentEngine, sessions: list[Session]) -> None:
    for session in sessions[:3]:
        asked = build_prompt(session)
        found, tokens = engine.score_lines(asked.messages, asked.items, TEXTS)
        wanted = [[alone(engine, session, line, text) for text in TEXTS] for line in asked.items]
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert tokens > engine.prompt_tokens(asked.messages)
