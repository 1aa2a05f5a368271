"""The training sessions that ``routedk distill`` distils from."""

from collections.abc import Sequence
from pathlib import Path

import typer

from routedk.cli.lm import lm_errors
from routedk.cli.teacher import ANNOTATION, DistillCommand, journaled_teacher
from routedk.types import Session

SCORES_FILE = "scores.jsonl"


def training_sample(
    command: DistillCommand,
    pool: Sequence[Session],
    output: Path,
    scores: Path | None,
    seed: int,
) -> list[Session]:
    """The sampled training sessions, in the order of the pool.

    Args:
        command: Strategy, ratio and teacher.
        pool: All training sessions.
        output: Where scores that must be made first are kept.
        scores: File of scores for the strategy ``difficulty``.
        seed: Seed of all chance.
    """
    from routedk.optimizers.difficulty import read_scores
    from routedk.optimizers.sampling import make_strategy, sample_sessions

    known = None
    if command.strategy == "difficulty":
        kept = scores or output / SCORES_FILE
        if scores is None and not kept.exists():
            _score(command, pool, output)
        known = read_scores(kept)
    strategy = make_strategy(command.strategy, seed=seed, scores=known)
    taken = {session.id for session in sample_sessions(strategy, pool, command.ratio)}
    return [session for session in pool if session.id in taken]


def _score(command: DistillCommand, pool: Sequence[Session], output: Path) -> None:
    """Answer every session zero-shot, by the LM teacher where there is one, else the student."""
    import dspy

    from routedk.adapters.engine import student_lm
    from routedk.optimizers.difficulty import difficulty_scores, write_scores
    from routedk.programs.generator import BundleGenerator

    typer.echo(f"Answering {len(pool)} sessions, for how difficult they are ...", err=True)
    program = BundleGenerator()
    if command.teacher == ANNOTATION:
        with dspy.context(lm=student_lm()):
            scores = difficulty_scores(program, pool)
    else:
        with (
            lm_errors(),
            journaled_teacher(command, output) as teacher,
            dspy.context(lm=teacher.lm),
        ):
            scores = difficulty_scores(program, pool, num_threads=command.threads)
    write_scores(output / SCORES_FILE, scores)
