"""``routedk generate``: sessions in, bundles out, one line per session."""

import io
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any

import typer

import routedk
from routedk.adapters.generate import GenerateConfig
from routedk.cli.config_options import with_config_options
from routedk.cli.output import progress, refuse_foreign
from routedk.cli.sessions import DataPath, Split, load_split, sessions_on_stdin, warn_untitled
from routedk.data import DataOptions
from routedk.errors import SettingError
from routedk.files import atomic_write, read_jsonl


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
    from routedk.eval.predictions import prediction_record

    if output is not None:
        refuse_foreign(output, _holds_bundles)
    if data != "-":
        sessions = load_split(data, options, split)
        warn_untitled(sessions)
        answers, total = routedk.stream_answers(sessions, config), len(sessions)
    elif split == "all":
        answers, total = routedk.stream_answers(sessions_on_stdin(options), config), None
    else:
        raise SettingError(f"--data - --split {split}: all of standard input is answered")
    unread: list[routedk.Answer] = []
    with _writer(output) as file, progress() as show:
        for number, answer in enumerate(answers, start=1):
            file.write(json.dumps(prediction_record(answer), ensure_ascii=False) + "\n")
            file.flush()
            if answer.error:
                unread.append(answer)
            show("sessions", number, total)
    if unread:
        first = unread[0]
        typer.echo(
            f"Sessions without an answer: {len(unread)}, first {first.session_id}: {first.error}",
            err=True,
        )


def _holds_bundles(path: Path) -> bool:
    """Whether a file looks like our output by its first line; sessions have other keys."""
    _, record = next(read_jsonl(path))
    return record.keys() == {"session_id", "bundles"}


def _writer(output: Path | None) -> AbstractContextManager[IO[Any]]:
    if output is not None:
        return atomic_write(output)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    return nullcontext(sys.stdout)
