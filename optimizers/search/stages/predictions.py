"""A trial's answers, session by session, kept as they come.

Each chunk of sessions is an artifact: ``predictions.jsonl``, as `routedk evaluate --predictions`
reads it, with the tokens of each answer beside its bundles.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dspy

from routedk.eval.predictions import prediction_record
from routedk.files import read_jsonl, write_jsonl_records
from routedk.optimizers.search.stages.common import Common, Ledger, sessions_hash
from routedk.programs.batch import call_all
from routedk.programs.consensus import Consensus
from routedk.programs.generator import BundleGenerator
from routedk.programs.program_file import load_program
from routedk.programs.usage import metered
from routedk.types import Answer, Session

PREDICTIONS = "predictions.jsonl"

Record = dict[str, Any]
_OWN = ("input_tokens", "output_tokens")


def answered(
    ledger: Ledger,
    program: Path,
    inputs: dict[str, Any],
    enhancement: str,
    lm: Callable[[], Any],
    sessions: Sequence[Session],
) -> Iterator[tuple[Session, Record, int]]:
    """The answer to each session, in order, from the store or asked for now.

    Args:
        ledger: Of the trial; the part is added to it before the last answer is given.
        program: The compiled program.
        inputs: What tells it and its student from others.
        enhancement: How an answer is chosen.
        lm: Called for the student, where it is asked.
        sessions: What to answer.

    Yields:
        The session, the record of its prediction, and the tokens read and written for it.
    """
    common = ledger.common
    draws = {} if enhancement == "greedy" else {"draws": common.draws, "seed": common.seed}
    settings = {"enhancement": enhancement, "dtype": common.precision, **draws}
    # Sessions that are answered are hidden from each other, so they are part of the key.
    answered_ids = [session.id for session in sessions]
    for first in range(0, len(sessions), common.threads):
        chunk = sessions[first : first + common.threads]

        def make(out: Path, work: Path, chunk: Sequence[Session] = chunk) -> None:
            model = lm().copy(seed=common.seed) if draws else lm()
            ask = _asker(common, program, enhancement, model, sessions)
            write_jsonl_records(out / PREDICTIONS, _ask(ask, chunk, model, common.threads))

        part = ledger.obtain(
            "predictions",
            make,
            inputs={**inputs, "answered": answered_ids, "sessions": sessions_hash(chunk)},
            settings=settings,
        )
        lines = [record for _, record in read_jsonl(part.folder / PREDICTIONS)]
        for session, line in zip(chunk, lines, strict=True):
            yield session, _record(line), _tokens(line)


def _asker(
    common: Common, program: Path, enhancement: str, lm: Any, sessions: Sequence[Session]
) -> Callable[..., Any]:
    """The program with its enhancement; sessions that are answered are no neighbours."""
    generator: BundleGenerator = load_program(program)
    generator.knowledge = generator.knowledge.without({session.id for session in sessions})
    if enhancement == "consensus":
        consensus: Callable[..., Any] = Consensus(generator, n=common.draws)
        return consensus
    plain: Callable[..., Any] = generator
    return plain


def _ask(
    ask: Callable[..., Any], sessions: Sequence[Session], lm: Any, threads: int
) -> list[Record]:
    """Answer some sessions side by side."""

    def answer(session: Session) -> Record:
        with metered() as meter:
            found = ask(session=session)
        usage = meter.usage
        return {
            **prediction_record(Answer(session.id, tuple(found.bundles))),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
        }

    with dspy.context(lm=lm):
        return call_all(answer, sessions, num_threads=threads)


def _record(line: Record) -> Record:
    return {name: value for name, value in line.items() if name not in _OWN}


def _tokens(line: Record) -> int:
    return int(line["input_tokens"]) + int(line["output_tokens"])
