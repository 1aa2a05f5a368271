"""``routedk generate``: sessions in, bundles out, one line per session."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

import routedk
from routedk.adapters.generate import GenerateConfig
from routedk.cli.config_options import with_config_options
from routedk.cli.output import progress, refuse_foreign
from routedk.cli.sessions import Split, StreamPath, sessions_to_answer
from routedk.data import DataOptions
from routedk.errors import SettingError, one_line
from routedk.files import atomic_write, printable_json


@with_config_options
def generate(
    data: StreamPath,
    config: GenerateConfig,
    options: DataOptions,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the bundles go; stdout if unset.")
    ] = None,
    split: Split = "all",
    fail_on_error: Annotated[
        bool, typer.Option("--fail-on-error", help="Exit with code 1 if any line has an error.")
    ] = False,
) -> None:
    """Generate the bundles of each session, as JSONL that routedk evaluate reads.

    Sessions come from a file or, with --data -, as JSONL from standard input. A session's line is
    written when it and those before it are answered; with --output to FILE.partial, which becomes
    FILE at the end. A session that cannot be answered has a line with an error. Answers are kept: a
    run that was interrupted resumes when the same command is given again.

    Example: routedk generate --data demo --split test --experts experts --program program.json
    --output bundles.jsonl
    """
    from routedk.eval.predictions import prediction_record

    if output is not None:
        known = {"session_id", "bundles", "confidence", "changed", "error"}
        refuse_foreign(output, lambda first: {"session_id", "bundles"} <= first.keys() <= known)
    if data == "-" and split != "all":
        raise SettingError(f"--data - --split {split}: all of standard input is answered")
    sessions, total = sessions_to_answer(data, options, split)
    answers = routedk.stream_answers(sessions, config)
    errors: list[str] = []
    number = 0
    with progress() as show, _lines(output) as file:
        show("sessions", 0, total)
        for number, answer in enumerate(answers, start=1):
            file.write(printable_json(prediction_record(answer)) + "\n")
            file.flush()
            if answer.error:
                errors.append(f"{answer.session_id}: {answer.error}")
            show("sessions", number, total)
    if errors:
        count = f"{len(errors)} of {number}"
        typer.echo(one_line(f"Sessions without an answer: {count}, first {errors[0]}"), err=True)
        if fail_on_error:
            raise typer.Exit(1)


@contextmanager
def _lines(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        # Whatever the terminal's encoding: readers of JSONL expect UTF-8.
        yield typer.get_text_stream("stdout", encoding="utf-8")
    else:
        with atomic_write(output, partial=True) as file:
            yield file
