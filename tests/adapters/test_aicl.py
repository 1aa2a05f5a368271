from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dspy
import pytest

from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.engine.requests import Job
from routedk.adapters.student import Student
from routedk.programs.aicl.program import AICL
from routedk.programs.batch import generate_all
from routedk.types import Session

from .conftest import copy_of


class KeepingEngine(StudentEngine):
    """Keeps the items of each job; none for a free text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seen: list[Job] = []
        super().__init__(*args, **kwargs)

    def run(self, jobs: Sequence[Job]) -> Any:
        self.seen += jobs
        return super().run(jobs)


@pytest.fixture
def engine(loaded: Student) -> Iterator[KeepingEngine]:
    found = KeepingEngine(copy_of(loaded))
    yield found
    found.close()


def test_a_student_without_any_training_runs_through_it(
    engine: KeepingEngine,
    sessions: list[Session],
    lines_of: Callable[[Session], tuple[str, ...]],
) -> None:
    lm = engine_lm(engine)
    lm.cache = False
    with dspy.context(lm=lm):
        answers = generate_all(AICL(sessions[2:]), sessions[:2], num_threads=2)
    for session, answer in zip(sessions, answers, strict=False):
        ids = {item.id for item in session.items}
        assert answer.error is None
        assert answer.none == (not answer.bundles)
        assert all(bundle.items <= ids for bundle in answer.bundles)
        assert answer.output_tokens > 0
    assert sum(answer.calls for answer in answers) == len(engine.seen)
    assert sum(answer.input_tokens for answer in answers) == sum(
        len(job.prompt.ids) for job in engine.seen
    )
    # Lists of bundles are constrained to the items of their session, free texts are short.
    constrained = {job.items for job in engine.seen if job.items}
    assert constrained <= {lines_of(session) for session in sessions}
    assert {lines_of(session) for session in sessions[:2]} <= constrained
    free = {job.max_tokens for job in engine.seen if not job.items}
    assert {96} <= free <= {32, 96}
