"""Programs under the same conditions: run, kept, compared in pairs, and shown in one table."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import dspy
import typer
from rich.table import Table

from routedk.data import session_to_record
from routedk.errors import SettingError
from routedk.eval import EvaluateConfig, evaluate
from routedk.eval.bootstrap import bootstrap
from routedk.eval.predictions import prediction_record
from routedk.eval.protocols import Score, matched
from routedk.eval.report import versions
from routedk.files import read_json, write_json
from routedk.programs.batch import generate_all
from routedk.programs.usage import Usage, metered
from routedk.types import Answer, Session


@dataclass(frozen=True)
class Condition:
    """One line of the table.

    Args:
        name: As in the table.
        make: Makes the language model, None where there is none, and the program, which takes
            ``session=``. A program whose prediction has ``calls`` and tokens counts them itself.
    """

    name: str
    make: Callable[[], tuple[Any, Any]]


def run_conditions(
    chosen: Iterable[Condition],
    sessions: Sequence[Session],
    output: Path,
    config: Mapping[str, Any],
    *,
    names: Sequence[str],
    base: str,
    threads: int,
    seed: int,
) -> dict[str, Any]:
    """Run what the output does not hold yet, and write it after every condition.

    Args:
        chosen: What to run.
        sessions: Sessions with gold.
        output: The results file.
        config: The settings of this run.
        names: All conditions in the table's order.
        base: The condition that the others are compared with.
        threads: Calls under way at once.
        seed: Seed of the bootstrap.

    Returns:
        All records, in the table's order.

    Raises:
        SettingError: The file is of other settings, or of no benchmark like this.
    """
    records = kept_conditions(output, config)
    for condition in chosen:
        if condition.name in records:
            typer.echo(f"{condition.name}: kept from {output}", err=True)
            continue
        lm, program = condition.make()
        with dspy.context(lm=lm):
            record = run_program(program, sessions, threads=threads, seed=seed)
        # Another run may have added to the file meanwhile.
        records = {**kept_conditions(output, config), condition.name: record}
        for name in records.keys() - {base} if base in records else ():
            paired = differences(records[name], records[base], sessions, seed)
            records[name]["difference"] = paired
        # In the table's order, whatever the order of the runs.
        order = [*names, *records]
        records = {name: records[name] for name in dict.fromkeys(order) if name in records}
        write_json(output, {"config": config, "versions": versions(), "conditions": records})
        f1 = record["results"]["matched"]["f1"]["value"]
        typer.echo(f"{condition.name}: matched F1 {f1:.3f}", err=True)
    return records


def run_program(
    program: Any, sessions: Sequence[Session], *, threads: int, seed: int
) -> dict[str, Any]:
    """Answer and score every session with one program.

    Args:
        program: What to run, under the LM of the surrounding context.
        sessions: Sessions with gold.
        threads: Calls under way at once.
        seed: Seed of the bootstrap.

    Returns:
        Its record: results and counts as in a results file, what it cost, and its predictions.
    """

    def ask(session: Session) -> tuple[Any, Usage]:
        with metered() as meter:
            answer = program(session=session)
        return answer, meter.usage

    started = perf_counter()
    found = generate_all(ask, sessions, num_threads=threads)
    seconds = perf_counter() - started
    made = [
        Answer(session.id, tuple(answer.bundles))
        for session, (answer, _) in zip(sessions, found, strict=True)
    ]
    spent = [usage for _, usage in found]
    total = sum(spent, Usage())
    each = len(sessions)
    config = EvaluateConfig(intents=False, seed=seed)
    evaluated = evaluate(sessions, made, config).system
    assert evaluated is not None
    return {
        **evaluated.to_dict(),
        "unparsable": sum(answer.error is not None for answer, _ in found),
        "cost": {
            "calls_per_session": total.calls / each,
            "input_tokens_per_session": total.input_tokens / each,
            "output_tokens_per_session": total.output_tokens / each,
            "seconds_per_session": seconds / each,
            "calls": total.calls,
            "unmetered_calls": total.unmetered,
        },
        "predictions": [prediction_record(answer) for answer in made],
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
    rows = [[Score(a[m] - b[m]) for m in metrics] for a, b in zip(mine, other, strict=True)]
    found = bootstrap(rows, seed=seed)
    return {metric: asdict(interval) for metric, interval in zip(metrics, found, strict=True)}


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
        raise SettingError(f"{output}: not a file of this benchmark: name another --output")
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
    yield f"{cost['seconds_per_session']:.2f}"


def digest(sessions: Sequence[Session]) -> str:
    """A hash of sessions, gold included."""
    records = [session_to_record(session) for session in sessions]
    return hashlib.sha256(json.dumps(records).encode()).hexdigest()[:16]
