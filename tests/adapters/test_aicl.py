from collections.abc import Iterator
from typing import Any

import dspy
import pytest

from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.engine.grammar import BundleList
from routedk.adapters.engine.writing import Writing
from routedk.adapters.student import Student
from routedk.programs.aicl.program import AICL
from routedk.programs.batch import generate_all
from routedk.types import Session

from .conftest import copy_of


class KeepingEngine(StudentEngine):
    """Keeps its jobs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seen: list[Writing] = []
        super().__init__(*args, **kwargs)

    def job(self, request: Any) -> Writing:
        self.seen.append(super().job(request))
        return self.seen[-1]


@pytest.fixture
def engine(loaded: Student) -> Iterator[KeepingEngine]:
    found = KeepingEngine(copy_of(loaded))
    yield found
    found.close()


def test_a_student_without_any_training_runs_through_it(
    engine: KeepingEngine,
    sessions: list[Session],
) -> None:
    lm = engine_lm(engine)
    with dspy.context(lm=lm):
        answers = generate_all(AICL(sessions[2:]), sessions[:2], num_threads=2)
    for session, answer in zip(sessions, answers, strict=False):
        ids = {item.id for item in session.items}
        assert answer.error is None
        assert answer.none == (not answer.bundles)
        assert all(bundle.items <= ids for bundle in answer.bundles)
    # Lists of bundles are constrained to the items of their session, free texts are short.
    sizes = {job.grammar.num_items for job in engine.seen if isinstance(job.grammar, BundleList)}
    assert {len(session.items) for session in sessions[:2]} <= sizes
    assert sizes <= {len(session.items) for session in sessions}
    free = {job.limit for job in engine.seen if job.grammar is None}
    assert {96} <= free <= {32, 96}
