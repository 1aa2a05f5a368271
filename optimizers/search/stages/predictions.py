"""A trial's answers, session by session, kept as they come.

The part is ``predictions.jsonl``, as `routedk evaluate --predictions` reads it, with the tokens of
each answer beside its bundles. A set that is cut, by a kill or by a pruner, is no part, but the
next trial that wants the very set goes on behind its last whole line.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dspy

from routedk.adapters.engine.judges import StudentRanker
from routedk.artifacts.store import Claim, Part
from routedk.eval.predictions import make_answer, prediction_record
from routedk.files import parse_jsonl, read_bytes, read_jsonl, write_jsonl_records
from routedk.optimizers.search.stages.common import Common, Ledger, sessions_hash
from routedk.programs.batch import call_all
from routedk.programs.choosing.likelihood import LikelihoodRanking
from routedk.programs.consensus import Consensus
from routedk.programs.generator import BundleGenerator
from routedk.programs.program_file import load_generator
from routedk.programs.usage import metered
from routedk.types import Session

PREDICTIONS = "predictions.jsonl"

Record = dict[str, Any]
_OWN = ("input_tokens", "output_tokens", "seconds")


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
    recipe = ledger.recipe(
        "predictions",
        {**inputs, "sessions": sessions_hash(sessions)},
        {"enhancement": enhancement, "dtype": common.precision, **draws},
    )
    with common.store.claim(recipe) as claim:
        if claim.part is not None:
            ledger.note(claim.part)
            lines = [record for _, record in read_jsonl(claim.part.folder / PREDICTIONS)]
        else:
            lines = _begun(claim, sessions)
            if len(lines) == len(sessions):
                ledger.note(_finish(claim, lines))
        for session, line in zip(sessions, lines, strict=False):
            yield session, _record(line), _tokens(line)
        if claim.part is not None:
            return
        model, asked = lm(), len(lines)
        if draws:
            model = model.copy(seed=common.seed)
        ask = _asker(common, program, enhancement, model, sessions)
        for first in range(asked, len(sessions), common.threads):
            chunk = sessions[first : first + common.threads]
            made = _ask(ask, chunk, model, common.threads)
            with (claim.work / PREDICTIONS).open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in made)
            lines += made
            # Before the last answer is given: who has it need not ask for another.
            if len(lines) == len(sessions):
                ledger.note(_finish(claim, lines))
            for session, line in zip(chunk, made, strict=True):
                yield session, _record(line), _tokens(line)


def _asker(
    common: Common, program: Path, enhancement: str, lm: Any, sessions: Sequence[Session]
) -> Callable[..., Any]:
    """The program with its enhancement; sessions that are answered are no neighbours."""
    generator: BundleGenerator = load_generator(program)
    generator.knowledge = generator.knowledge.without({session.id for session in sessions})
    if enhancement == "consensus":
        consensus: Callable[..., Any] = Consensus(generator, n=common.draws)
        return consensus
    if enhancement == "likelihood":
        ranker = StudentRanker(lm, generator)
        ranking: Callable[..., Any] = LikelihoodRanking(generator, ranker, n=common.draws)
        return ranking
    plain: Callable[..., Any] = generator
    return plain


def _ask(
    ask: Callable[..., Any], sessions: Sequence[Session], lm: Any, threads: int
) -> list[Record]:
    """Answer some sessions side by side; their time is shared out evenly."""

    def answer(session: Session) -> Record:
        with metered() as meter:
            found = ask(session=session)
        bundles = make_answer([(bundle.item_ids, bundle.intent) for bundle in found.bundles])
        # A program that asks on threads of its own says itself what it asked for.
        own = found.get("input_tokens") is not None
        usage: Any = found if own else meter.usage
        return {
            **prediction_record(session.id, bundles),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
        }

    started = time.monotonic()
    with dspy.context(lm=lm):
        made = call_all(answer, sessions, num_threads=threads)
    each = round((time.monotonic() - started) / len(sessions), 4)
    return [{**record, "seconds": each} for record in made]


def _begun(claim: Claim, sessions: Sequence[Session]) -> list[Record]:
    """The whole lines of an earlier attempt; one that was cut is taken off the file."""
    path = claim.work / PREDICTIONS
    if not path.exists():
        return []
    content = read_bytes(path)
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [record for _, record in parse_jsonl(whole.split(b"\n"), path=path)][: len(sessions)]


def _finish(claim: Claim, lines: Sequence[Record]) -> Part:
    kept = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    write_jsonl_records(claim.out / PREDICTIONS, kept)
    return claim.finish(seconds=sum(line["seconds"] for line in lines))


def _record(line: Record) -> Record:
    return {name: value for name, value in line.items() if name not in _OWN}


def _tokens(line: Record) -> int:
    return int(line["input_tokens"]) + int(line["output_tokens"])
