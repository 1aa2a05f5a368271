import dspy

from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.student import Student
from routedk.programs.aicl.program import AICL
from routedk.programs.batch import generate_all
from routedk.types import Session


def test_a_student_without_any_training_runs_through_it(
    loaded: Student, sessions: list[Session]
) -> None:
    lm = engine_lm(StudentEngine(loaded))
    with dspy.context(lm=lm):
        answers = generate_all(AICL(sessions[2:]), sessions[:2], num_threads=2)
    lm.engine.close()
    for session, answer in zip(sessions, answers, strict=False):
        assert answer.error is None
        assert answer.none == (not answer.bundles)
        assert all(bundle.items <= {i.id for i in session.items} for bundle in answer.bundles)
