"""``routedk generate``: sessions in, bundles out, one line per session."""

import json
from pathlib import Path
from typing import Annotated

import typer

import routedk
from routedk.adapters.generate import GenerateConfig
from routedk.cli.config_options import with_config_options
from routedk.cli.output import progress, refuse_foreign
from routedk.cli.sessions import DataPath, Split, sessions_to_answer
from routedk.data import DataOptions
from routedk.errors import SettingError
from routedk.types import Answer


@with_config_options
def generate(
    data: DataPath,
    config: GenerateConfig,
    options: DataOptions,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the bundles go; stdout if unset.")
    ] = None,
    split: Split = "all",
) -> None:
    """Generate the bundles of each session, as JSONL that routedk evaluate reads.

    Sessions come from a file or, with --data -, as JSONL from standard input, and are answered 64
    at a time. Answers are kept: a run that was interrupted resumes when the same command is given
    again.

    Example: routedk generate --data demo --split test --experts experts --program program.json
    --output bundles.jsonl
    """
    from routedk.eval.predictions import prediction_record, write_predictions

    if output is not None:
        known = {"session_id", "bundles", "confidence", "error"}
        refuse_foreign(output, lambda first: {"session_id", "bundles"} <= first.keys() <= known)
    if data == "-" and split != "all":
        raise SettingError(f"--data - --split {split}: all of standard input is answered")
    sessions = sessions_to_answer(data, options, split)
    total = len(sessions) if isinstance(sessions, list) else None
    answers = routedk.stream_answers(sessions, config)
    unread: list[str] = []
    finished: list[Answer] = []
    # Whatever the terminal's encoding: readers of JSONL expect UTF-8.
    stdout = typer.get_text_stream("stdout", encoding="utf-8")
    with progress() as show:
        for number, answer in enumerate(answers, start=1):
            if output is None:
                stdout.write(json.dumps(prediction_record(answer), ensure_ascii=False) + "\n")
                stdout.flush()
            else:
                finished.append(answer)
            if answer.error:
                unread.append(f"{answer.session_id}: {answer.error}")
            show("sessions", number, total)
    if output is not None:
        write_predictions(output, finished)
    if unread:
        typer.echo(f"Sessions without an answer: {len(unread)}, first {unread[0]}", err=True)
