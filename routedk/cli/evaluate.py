"""``routedk evaluate``: predictions and baselines against gold, as a table and as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routedk.cli.options import SessionSource, takes_sessions
from routedk.data import load_sessions, require_titles, select_split, split_sessions
from routedk.errors import SettingError
from routedk.files import write_json
from routedk.types import Answer, Session

if TYPE_CHECKING:
    from routedk.eval import Report, System


@takes_sessions(split="test")
def evaluate(
    source: SessionSource,
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="Where the results go, as JSON.")
    ],
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Predictions to score, as generate writes them."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Score the baselines, too; needs titles.")
    ] = False,
) -> None:
    """Score bundles against gold bundles, with 95% intervals over sessions.

    Sessions without gold bundles are passed over; sessions that the predictions leave out count
    as unanswered. The baselines' thresholds are chosen on the validation split, whatever split is
    scored.
    """
    from routedk.eval import Report, read_predictions

    if predictions is None and not baselines:
        raise SettingError("nothing to score: give --predictions FILE, or --baselines, or both")
    everything = load_sessions(source.path, source.options)
    sessions = select_split(everything, source.options, source.split)
    system = None
    if predictions is not None:
        answers = read_predictions(predictions, everything)
        system = _score(source, sessions, answers, {"predictions": str(predictions)})
    report = Report(
        config={**source.config(), "leaks": source.options.untitled == "drop"},
        system=system,
        baselines=_score_baselines(source, sessions, everything) if baselines else (),
    )
    write_json(output, report.to_dict())
    _show(report, output)


def _score(
    source: SessionSource,
    sessions: Sequence[Session],
    answers: "list[Answer]",
    config: Mapping[str, object],
) -> "System":
    """The system under test; its intents are scored where it gives any."""
    from routedk.eval import System, default_encoder, evaluate

    with_intents = any(b.intent.strip() for answer in answers for b in answer.bundles)
    encoder = default_encoder() if with_intents else None
    result = evaluate(sessions, answers, seed=source.options.seed, encoder=encoder)
    return System(name="predictions", result=result, config=config)


def _score_baselines(
    source: SessionSource, sessions: Sequence[Session], everything: Sequence[Session]
) -> "tuple[System, ...]":
    """All baselines, their thresholds chosen on the validation split."""
    from routedk.eval import BaselineData, default_encoder, evaluate_baselines

    parts = split_sessions(everything, source.options)
    # A small data set may have no validation session with gold; training sessions are as unseen.
    known = {part: [s for s in parts[part] if s.gold] for part in ("val", "train")}
    part = "val" if known["val"] else "train"
    require_titles([*(session for session in sessions if session.gold), *known[part]])
    scored = {session.id for session in sessions}
    training = [
        session
        for session in known["train"]
        if part != "train" and session.id not in scored and all(i.title for i in session.items)
    ]
    data = BaselineData(
        catalogue=everything,
        validation=known[part],
        validation_name=part,
        encoder=default_encoder(),
        training=training,
    )
    return evaluate_baselines(sessions, data, seed=source.options.seed)


def _show(report: "Report", output: Path) -> None:
    """The table, what a reader must know about it, and where the file is."""
    from rich.console import Console
    from rich.text import Text

    from routedk.eval.table import report_notes, report_table

    console = Console()
    console.print(report_table(report), "")
    for note in [*report_notes(report), f"Results: {output}"]:
        console.print(Text(note), soft_wrap=True)
