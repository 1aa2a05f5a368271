"""The training sessions that ``routedk distill`` distils from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from routedk.cli.lm import lm_errors
from routedk.cli.teacher import DistillCommand, show_progress
from routedk.errors import SettingError
from routedk.types import Session

if TYPE_CHECKING:
    import dspy

    from routedk.programs.journal.journaled_lm import JournaledLM

SCORES_FILE = "scores.jsonl"


def training_sample(
    command: DistillCommand,
    pool: Sequence[Session],
    scores: dict[str, float] | None,
    seed: int,
) -> list[Session]:
    """The sampled training sessions, in the order of the pool.

    Args:
        command: Strategy and ratio.
        pool: All training sessions.
        scores: For the strategy ``difficulty``: how well each session was answered.
        seed: Seed of all chance.
    """
    from routedk.programs.sampling.sampling import make_strategy, sample_sessions

    strategy = make_strategy(command.strategy, seed=seed, scores=scores)
    taken = {session.id for session in sample_sessions(strategy, pool, command.ratio)}
    return [session for session in pool if session.id in taken]


def known_scores(command: DistillCommand) -> dict[str, float] | None:
    """The scores in the file that the command names; None without one.

    Raises:
        SettingError: Another strategy has no use for it.
    """
    if command.scores is None:
        return None
    if command.strategy != "difficulty":
        raise SettingError(
            f"--scores is of --strategy difficulty, the strategy is {command.strategy!r}"
        )
    from routedk.programs.sampling.difficulty import read_scores

    return read_scores(command.scores)


def make_scores(
    pool: Sequence[Session], journaled: "JournaledLM | None", output: Path, threads: int
) -> dict[str, float]:
    """Answer every session zero-shot, by the LM teacher where there is one, else the student.

    A session whose answer cannot be had counts as difficult.

    Args:
        pool: All training sessions.
        journaled: The LM teacher; None for the student.
        output: Where the scores are written, for other runs.
        threads: Calls of the teacher under way at once.
    """
    import dspy

    from routedk.programs.generator import BundleGenerator
    from routedk.programs.journal.journaled_lm import is_session_error
    from routedk.programs.sampling.difficulty import difficulty_scores, write_scores

    program = BundleGenerator()
    with lm_errors(), show_progress({"answer": len(pool)}) as advance:

        def answer(session: Session) -> "dspy.Prediction":
            try:
                return program(session=session)
            except Exception as error:
                if not is_session_error(error):
                    raise
                return dspy.Prediction(bundles=[])
            finally:
                advance("answer")

        if journaled is None:
            from routedk.adapters.engine.engine import student_lm

            lm, threads = student_lm(), 16
        else:
            lm = journaled.lm
        with dspy.context(lm=lm):
            scores = difficulty_scores(answer, pool, num_threads=threads)
    write_scores(output / SCORES_FILE, scores)
    return scores
