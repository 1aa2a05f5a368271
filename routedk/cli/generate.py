"""``routedk generate``: sessions in, bundles out, one line per session."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

import routedk
from routedk.adapters.answering import GenerateConfig
from routedk.adapters.generate import Engine
from routedk.adapters.ray_engine import RayConfig, answers_on_ray
from routedk.cli.config_options import with_config_options
from routedk.cli.output import progress, refuse_foreign
from routedk.cli.sessions import Split, StreamPath, data_record, sessions_to_answer
from routedk.data import DataOptions
from routedk.errors import SettingError, one_line
from routedk.files import atomic_write, printable_json
from routedk.types import Answer


@with_config_options
def generate(
    data: StreamPath,
    config: GenerateConfig,
    options: DataOptions,
    ray: RayConfig,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Where the bundles go: a file, or with --engine ray a folder; stdout if unset.",
        ),
    ] = None,
    split: Split = "all",
    engine: Annotated[
        Engine, typer.Option(help="In this process, or in actors of Ray, also on many machines.")
    ] = "local",
    fail_on_error: Annotated[
        bool, typer.Option("--fail-on-error", help="Exit with code 1 if any line has an error.")
    ] = False,
) -> None:
    """Generate the bundles of each session, as JSONL that routedk evaluate reads.

    Sessions come from a file or, with --data -, from standard input, as JSONL or CSV. A session's
    line is written once it and all before it are answered; with --output, to FILE.partial, which
    becomes FILE at the end. A session that cannot be answered gets a line with an error. Answers
    are kept: the same command resumes an interrupted run. With --engine ray, the lines are rows of
    Parquet files, in no particular order.

    Example: routedk generate --data demo --split test --experts experts --program program.json
    --output bundles.jsonl
    """
    if data == "-" and split != "all":
        raise SettingError(f"--data - --split {split}: all of standard input is answered")
    if engine == "local" and ray != RayConfig():
        raise SettingError("the options of Ray's actors and batches need --engine ray")
    if engine == "ray" and output is None:
        raise SettingError("engine=ray: name a folder with --output")
    if engine == "local" and output is not None:
        known = {"session_id", "bundles", "confidence", "changed", "error"}
        refuse_foreign(output, lambda first: {"session_id", "bundles"} <= first.keys() <= known)
    sessions, total = sessions_to_answer(data, options, split)
    if engine == "ray" and output is not None:
        # Another file of the same name, seen from another folder, is other data.
        place = str(Path(data).resolve()) if Path(data).exists() else data
        made_with = data_record(place, options, split)
        answers = answers_on_ray(sessions, output, config, ray=ray, made_with=made_with)
    else:
        answers = _written(routedk.stream_answers(sessions, config), output)
    first, bad, number = "", 0, 0
    with progress() as show:
        show("sessions", 0, total)
        for number, (name, error) in enumerate(answers, start=1):
            if error:
                bad, first = bad + 1, first or f"{name}: {error}"
            show("sessions", number, total)
    if bad:
        said = f"Sessions without an answer: {bad} of {number}, first {first}"
        typer.echo(one_line(said), err=True)
        if fail_on_error:
            raise typer.Exit(1)


def _written(answers: Iterable[Answer], output: Path | None) -> Iterator[tuple[str, str]]:
    """Write each answer as a line, then yield its session id and error."""
    from routedk.eval.predictions import prediction_record

    # Whatever the terminal's encoding: readers of JSONL expect UTF-8.
    stdout = nullcontext(typer.get_text_stream("stdout", encoding="utf-8"))
    with atomic_write(output, partial=True) if output else stdout as file:
        for answer in answers:
            file.write(printable_json(prediction_record(answer)) + "\n")
            file.flush()
            yield answer.session_id, answer.error
