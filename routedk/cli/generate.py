"""``routedk generate``: sessions in, bundles out, line by line."""

import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from routedk.cli.lm import Dtype, Experts, LmName, Student, lm_errors, resolve_lm
from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.data import apply_options, select_split
from routedk.data.records import sessions_from_records
from routedk.errors import DataError, SettingError
from routedk.files import parse_jsonl, read_bytes, read_json, write_json
from routedk.types import Answer, Session

_CHUNK = 4  # sessions per thread between two writes
_BEGINNING = b'{"session_id": '


@takes_sessions(split="all")
def generate(
    source: SessionSource,
    program: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="program.json of routedk compile; none: session only."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the bundles go; stdout if unset.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an output file that was cut short.")
    ] = False,
    lm: LmName = None,
    experts: Experts = None,
    student: Student = None,
    dtype: Dtype = None,
    threads: Annotated[int, typer.Option(min=1, help="Sessions under way at once.")] = 16,
) -> None:
    """Generate the bundles of each session, as JSONL that routedk evaluate reads.

    --data - reads sessions as JSONL from stdin. Lines are written as they come, in the order of
    the sessions.
    """
    import dspy

    from routedk.eval.predictions import prediction_record
    from routedk.programs.batch import generate_all
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.program_file import load_program

    if resume and output is None:
        raise SettingError("--resume needs --output FILE: on stdout nothing can be resumed")
    done = _done(output, resume) if output is not None else set()
    sessions = _read(source)
    if not sessions:
        raise DataError(
            f"the split {source.split!r} has no session",
            path=source.path,
            hint="name another --split",
        )
    runner = load_program(program) if program is not None else BundleGenerator()
    _hide(runner, sessions)
    left = [session for session in sessions if session.id not in done]
    if not left:
        typer.echo(f"All {len(sessions)} sessions are done.", err=True)
        return
    chosen = resolve_lm(lm=lm, experts=experts, student=student, dtype=dtype)
    with dspy.context(lm=chosen):
        runner.check_lm()
    warn_untitled(left)
    if output is not None:
        _sign(output, {"lm": chosen.model, "program": _digest(program)})
    size = _CHUNK * threads
    unread: list[tuple[str, str]] = []
    with _writer(output) as file, dspy.context(lm=chosen), lm_errors():
        for chunk in _progress([left[k : k + size] for k in range(0, len(left), size)]):
            answers = generate_all(runner, chunk, num_threads=threads)
            for session, answer in zip(chunk, answers, strict=True):
                made = Answer(session.id, tuple(answer.bundles))
                file.write(_line(prediction_record(made)))
                if answer.error:
                    unread.append((session.id, answer.error))
            file.flush()
    if unread:
        first, why = unread[0]
        typer.echo(f"Sessions without an answer: {len(unread)}, first {first}: {why}", err=True)


def _read(source: SessionSource) -> list[Session]:
    if source.path != "-":
        return source.load()
    options = source.options
    records = parse_jsonl(sys.stdin.buffer, path="<stdin>")
    sessions = sessions_from_records(records, path="<stdin>")
    return select_split(apply_options(sessions, options), options, source.split)


def _hide(program: Any, sessions: Sequence[Session]) -> None:
    """Take the sessions that are answered, and their gold, out of what a program may show."""
    shown = {session.id for session in program.knowledge.sessions}
    answered = {session.id for session in sessions}
    program.knowledge = program.knowledge.without(answered)
    if shown & answered:
        typer.echo(
            f"{len(shown & answered)} of the program's {len(shown)} training sessions are among "
            "those answered: they are not shown as neighbours.",
            err=True,
        )


def _done(output: Path, resume: bool) -> set[str]:
    """Ids already in the output; a last line that was cut is taken away.

    Raises:
        DataError: The file is not to be continued, or is not one of ``routedk generate``.
    """
    if not output.exists():
        return set()
    if not resume:
        raise DataError("exists already", path=output, hint="give --resume, or another --output")
    content = read_bytes(output)
    whole = content.rfind(b"\n") + 1
    records = list(parse_jsonl(content[:whole].split(b"\n"), path=output))
    # Exactly these keys: sessions have them, too, beside their items.
    foreign = [line for line, record in records if record.keys() != {"session_id", "bundles"}]
    cut = content[whole:]
    if foreign or not cut.startswith(_BEGINNING[: len(cut)]):
        raise DataError(
            "not a line of routedk generate",
            path=output,
            line=foreign[0] if foreign else content.count(b"\n") + 1,
            hint="--resume goes on with such a file only; name another --output",
        )
    if whole < len(content):
        with output.open("r+b") as file:
            file.truncate(whole)
    return {str(record["session_id"]) for _, record in records}


def _digest(program: Path | None) -> str | None:
    return None if program is None else hashlib.sha256(read_bytes(program)).hexdigest()


def _sign(output: Path, made_by: dict[str, str | None]) -> None:
    """Note beside the output what writes it; a run that goes on must be by the same.

    Raises:
        DataError: The output was begun with another program or language model.
    """
    note = output.with_name(f"{output.name}.made-by.json")
    if note.exists() and output.exists() and output.stat().st_size > 0:
        known = read_json(note)
        noted: dict[str, Any] = known if isinstance(known, dict) else {}
        other = [key for key, value in made_by.items() if noted.get(key) != value]
        if other:
            raise DataError(
                f"begun with another {' and '.join(other)}, see {note.name}",
                path=output,
                hint="resume with the same program, model and --dtype; or name another --output",
            )
    write_json(note, made_by)


def _writer(output: Path | None) -> AbstractContextManager[IO[str]]:
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        return nullcontext(sys.stdout)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return output.open("a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(
            f"cannot write: {error.strerror or error}", path=output, hint="name another --output"
        ) from error


def _line(record: dict[str, Any]) -> str:
    import json

    return json.dumps(record, ensure_ascii=False) + "\n"


def _progress(chunks: Sequence[list[Session]]) -> Iterator[list[Session]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("sessions", total=sum(map(len, chunks)))
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))
