"""In-context learning in one table: neighbours times knowledge, and AICL, on the same sessions.

    python -m benchmarks.icl --data demo --knowledge artifacts/demo/knowledge/knowledge.jsonl \
        --output icl.json

The results are written after every condition; a run that was cut goes on where it stopped.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import dspy
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from routedk.cli.lm import Dtype, LmName, Student, lm_errors, resolve_lm
from routedk.cli.options import (
    SessionSource,
    refuse_test_sessions,
    takes_sessions,
    warn_untitled,
)
from routedk.data import load_sessions, select_split, session_to_record, split_sessions
from routedk.errors import SettingError
from routedk.eval import evaluate, make_answer
from routedk.eval.bootstrap import bootstrap
from routedk.eval.matched import matched
from routedk.eval.predictions import prediction_record
from routedk.eval.report import versions
from routedk.files import read_json, write_json
from routedk.programs.aicl import AICL
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge import CompiledKnowledge
from routedk.programs.knowledge_file import read_knowledge
from routedk.programs.layout import layout_hash
from routedk.programs.usage import Usage, metered
from routedk.types import KnowledgeBase, Session

BASE = "0 neighbours, none"
AICL_NAME = "AICL, 1 neighbour"
SHOWN = 3
FORMATS = ("none", "patterns", "rules", "thoughts", "all")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One line of the table: a program over the same LM.

    Args:
        name: As in the table.
        make: Makes the program, which takes ``session=``.
    """

    name: str
    make: Callable[[], Any]


def conditions(
    base: KnowledgeBase, training: Sequence[Session], neighbours: Sequence[int], retriever: str
) -> Iterator[Condition]:
    """Every number of neighbours with every format, and AICL.

    Thoughts are shown with neighbours only.

    Args:
        base: Patterns, rules and thoughts.
        training: Sessions to find neighbours among.
        neighbours: Numbers of neighbours, in the order of the table.
        retriever: Name of the retriever.
    """
    rules = tuple(rule.text for rule in base.rules)
    thoughts = {thought.session_id: thought.text for thought in base.thoughts}
    for k in neighbours:
        for what in FORMATS:
            if what == "thoughts" and not k:
                continue
            chosen: dict[str, Any] = {}
            if what in ("patterns", "all"):
                chosen |= {"patterns": base.patterns, "patterns_shown": SHOWN}
            if what in ("rules", "all"):
                chosen |= {"rules": rules, "rules_shown": SHOWN}
            if k:
                chosen |= {"k": k, "sessions": tuple(training), "retriever": retriever}
                if what in ("thoughts", "all"):
                    chosen |= {"thoughts": thoughts, "show_thoughts": True}
            yield Condition(name=f"{_neighbours(k)}, {what}", make=partial(_plain, chosen))
    yield Condition(name=AICL_NAME, make=partial(AICL, training, k=1, retriever=retriever))


def _plain(chosen: dict[str, Any]) -> BundleGenerator:
    return BundleGenerator(CompiledKnowledge(**chosen))


def run_condition(
    condition: Condition, sessions: Sequence[Session], *, threads: int, seed: int
) -> dict[str, Any]:
    """Answer and score every session under one condition.

    Args:
        condition: What to run, under the LM of the surrounding context.
        sessions: Sessions with gold.
        threads: Calls under way at once.
        seed: Seed of the bootstrap.

    Returns:
        Its record: results and counts as in a results file, what it cost, and its predictions.
    """

    program = condition.make()

    def ask(session: Session) -> tuple[Any, Usage]:
        with metered() as meter:
            answer = program(session=session)
        return answer, meter.usage

    started = perf_counter()
    found = generate_all(ask, sessions, num_threads=threads)
    seconds = perf_counter() - started
    made = {
        session.id: make_answer([(b.item_ids, b.intent) for b in answer.bundles])
        for session, (answer, _) in zip(sessions, found, strict=True)
    }
    spent = [usage for _, usage in found]
    total = sum(spent, Usage())
    real = sum(usage.calls > usage.cached for usage in spent)
    each = len(sessions)
    return {
        **evaluate(sessions, made, seed=seed).to_dict(),
        "unparsable": sum(answer.error is not None for answer, _ in found),
        "cost": {
            "calls_per_session": total.calls / each,
            "input_tokens_per_session": total.input_tokens / each,
            "output_tokens_per_session": total.output_tokens / each,
            # Of sessions that the cache did not answer alone: theirs is the time that was taken.
            "seconds_per_session": seconds / real if real else None,
            "calls": total.calls,
            "cached_calls": total.cached,
            "unmetered_calls": total.unmetered,
        },
        "predictions": [prediction_record(name, answer) for name, answer in made.items()],
    }


def differences(
    record: Mapping[str, Any], base: Mapping[str, Any], sessions: Sequence[Session], seed: int
) -> dict[str, dict[str, float]]:
    """Mean of a condition's `matched` scores minus the base's, session by session, with 95%.

    Args:
        record: The condition's record.
        base: The record of the condition to compare with.
        sessions: Sessions that both answered.
        seed: Seed of the bootstrap.
    """
    mine, other = _matched(record, sessions), _matched(base, sessions)
    metrics = list(mine[0])
    values_NM = np.array([[a[m] - b[m] for m in metrics] for a, b in zip(mine, other, strict=True)])
    found = bootstrap(values_NM, np.ones_like(values_NM), seed=seed)
    return {metric: interval.to_dict() for metric, interval in zip(metrics, found, strict=True)}


def _matched(record: Mapping[str, Any], sessions: Sequence[Session]) -> list[dict[str, float]]:
    stated = {
        kept["session_id"]: [frozenset(bundle["items"]) for bundle in kept["bundles"]]
        for kept in record["predictions"]
    }
    scores = [matched(session.gold, stated[session.id]) for session in sessions]
    return [{metric: score.value for metric, score in mine.items()} for mine in scores]


def kept_conditions(output: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions that a file of an earlier run has; none where there is no file.

    Args:
        output: The results file.
        config: The settings of this run.

    Raises:
        SettingError: The file is of other settings, or none of this benchmark's.
    """
    if not output.exists():
        return {}
    found = read_json(output)
    if not isinstance(found, dict) or not isinstance(found.get("conditions"), dict):
        raise SettingError(f"{output}: not a file of benchmarks.icl: name another --output")
    before = found.get("config", {})
    other = [name for name in config if before.get(name) != config[name]]
    if other:
        raise SettingError(
            f"{output}: made with {other[0]} {before.get(other[0])!r}, this run has "
            f"{config[other[0]]!r}: name another --output"
        )
    return dict(found["conditions"])


def result_table(records: Mapping[str, Mapping[str, Any]]) -> Table:
    """One line a condition; the difference is in matched F1, costs are per session."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in (
        "\ncondition",
        "matched\nF1   95%",
        "paired\ndifference 95%",
        "\nP    R    EM",
        "strict\nP    R    C",
        "aicl\nP    R    C",
        "un-\nparsable",
        "\ncalls",
        "tokens\nin",
        "\nout",
        "\nseconds",
        "cached\ncalls",
    ):
        table.add_column(title, no_wrap=True)
    for name, record in records.items():
        table.add_row(name, *_cells(record))
    return table


def _cells(record: Mapping[str, Any]) -> Iterator[str]:
    results, cost = record["results"], record["cost"]
    f1 = results["matched"]["f1"]
    yield f"{f1['value']:.3f} {f1['low']:.2f}-{f1['high']:.2f}"
    paired = record.get("difference", {}).get("f1")
    yield f"{paired['value']:+.3f} {paired['low']:+.3f} to {paired['high']:+.3f}" if paired else "-"
    for protocol, last in (("matched", "exact"), ("strict", "coverage"), ("aicl", "coverage")):
        shown = (results[protocol][metric]["value"] for metric in ("precision", "recall", last))
        yield " ".join(f"{value:.3f}" for value in shown)
    yield str(record["unparsable"])
    yield f"{cost['calls_per_session']:.1f}"
    yield f"{cost['input_tokens_per_session']:.0f}"
    yield f"{cost['output_tokens_per_session']:.0f}"
    seconds = cost["seconds_per_session"]
    yield "-" if seconds is None else f"{seconds:.2f}"
    yield f"{cost['cached_calls']}"


def _neighbours(k: int) -> str:
    return f"{k} neighbour{'' if k == 1 else 's'}"


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        found = (-1,)
    if min(found) < 0:
        raise SettingError(f"--neighbours {text!r}: give whole numbers like 0,1,3")
    return found


def _digest(sessions: Sequence[Session]) -> str:
    records = [session_to_record(session) for session in sessions]
    return hashlib.sha256(json.dumps(records).encode()).hexdigest()[:16]


@takes_sessions(split="test")
def main(
    source: SessionSource,
    knowledge: Annotated[Path, typer.Option(help="The knowledge.jsonl of distill.")],
    output: Annotated[Path, typer.Option(help="Where the results go, as JSON.")],
    limit: Annotated[int, typer.Option(min=1, help="Sessions, the first in a seeded order.")] = 60,
    neighbours: Annotated[str, typer.Option(help="Numbers of similar sessions.")] = "0,1,3",
    only: Annotated[list[str] | None, typer.Option(help="Run these conditions alone.")] = None,
    retriever: Annotated[str, typer.Option(help="How similar sessions are found.")] = "tfidf",
    threads: Annotated[int, typer.Option(min=1, help="Calls to the model at once.")] = 16,
    lm: LmName = None,
    student: Student = None,
    dtype: Dtype = None,
) -> None:
    """Score plain in-context learning under every condition, and AICL, on the same sessions."""
    options = source.options
    everything = load_sessions(source.path, options)
    parts = split_sessions(everything, options)
    tested = [s for s in select_split(everything, options, source.split) if s.gold]
    sessions = random.Random(options.seed).sample(tested, len(tested))[:limit]
    asked = {session.id for session in sessions}
    training = [s for s in parts["train"] if s.bundles is not None and s.id not in asked]
    base = read_knowledge(knowledge)
    refuse_test_sessions(base, sessions, knowledge)
    warn_untitled([*training, *sessions])
    listed = list(conditions(base, training, _numbers(neighbours), retriever))
    names = [condition.name for condition in listed]
    if unknown := set(only or ()) - set(names):
        raise SettingError(f"no condition is called {min(unknown)!r}: choose among {names}")
    wanted = [c for c in listed if not only or c.name in only]

    student = student or (None if lm else "default")
    model = resolve_lm(lm=lm, student=student, dtype=dtype)
    config = {
        **source.config(),
        "limit": limit,
        "sessions": len(sessions),
        "sessions_hash": _digest(sessions),
        "training_hash": _digest(training),
        "knowledge_hash": hashlib.sha256(knowledge.read_bytes()).hexdigest()[:16],
        "lm": lm or student,
        "dtype": dtype,
        "model": model.model,
        "layout": layout_hash(),
        "retriever": retriever,
    }
    records = kept_conditions(output, config)
    for condition in wanted:
        if condition.name in records:
            typer.echo(f"{condition.name}: kept from {output}", err=True)
            continue
        with dspy.context(lm=model), lm_errors():
            record = run_condition(condition, sessions, threads=threads, seed=options.seed)
        # Another run may have added to the file meanwhile.
        records = {**kept_conditions(output, config), condition.name: record}
        for name in records.keys() - {BASE} if BASE in records else ():
            paired = differences(records[name], records[BASE], sessions, options.seed)
            records[name]["difference"] = paired
        # In the table's order, whatever the order of the runs.
        order = [*names, *records]
        records = {name: records[name] for name in dict.fromkeys(order) if name in records}
        write_json(output, {"config": config, "versions": versions(), "conditions": records})
        f1 = record["results"]["matched"]["f1"]["value"]
        typer.echo(f"{condition.name}: matched F1 {f1:.3f}", err=True)
    console = Console(width=200)
    console.print(result_table(records))
    console.print(
        f"{len(sessions)} sessions of {source.split}; model {model.model}; seconds are those of "
        "calls really made, tokens those of all answers.",
        highlight=False,
    )
    if silent := sum(record["cost"]["unmetered_calls"] for record in records.values()):
        console.print(f"{silent} answers came without token counts.", highlight=False)


if __name__ == "__main__":
    app = typer.Typer()
    app.command()(main)
    app()
