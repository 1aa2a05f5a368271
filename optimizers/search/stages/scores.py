"""How well the student as it comes answers the training sessions: what is difficult."""

from pathlib import Path

from routedk.adapters.engine.engine import student_lm
from routedk.artifacts.store import Artifact
from routedk.optimizers.search.stages.common import Ledger, sessions_hash
from routedk.programs.sampling.difficulty import difficulty_scores, write_scores

SCORES = "scores.jsonl"


def scored(ledger: Ledger) -> Artifact:
    """The scores of all annotated training sessions, as `routedk distill` makes them.

    Args:
        ledger: Of the trial.
    """
    common = ledger.common

    def make(out: Path, work: Path) -> None:
        lm = student_lm(None, common.student, dtype=common.dtype)
        try:
            found = difficulty_scores(common.annotated, lm, threads=common.threads)
        finally:
            lm.engine.close()
        write_scores(out / SCORES, found)

    inputs = {"sessions": sessions_hash(common.annotated), "student": common.fingerprint}
    return ledger.obtain("scores", make, inputs=inputs, settings={"dtype": common.precision})
