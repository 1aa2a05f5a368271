"""The sessions and the knowledge that a command works on."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from routedk.cli.output import is_main_process
from routedk.data import DataOptions, Part, SplitName, load_sessions, select_split, split_sessions
from routedk.data.load import apply_options, read_extra_titles
from routedk.data.policies import fill_titles, has_title
from routedk.data.records import sessions_from_records
from routedk.errors import DataError, SettingError
from routedk.files import parse_jsonl
from routedk.types import Answer, KnowledgeBase, Session

_SOURCE = "A .jsonl or .parquet file, a BundleRec folder, or demo for the embedded set."
_KNOWLEDGE = "A knowledge.jsonl of distill; NAME= where it is of another domain. Repeatable."

DataPath = Annotated[str, typer.Option("--data", metavar="PATH", help=_SOURCE)]
DataArgument = Annotated[str, typer.Argument(metavar="PATH", help=_SOURCE)]
Split = Annotated[SplitName, typer.Option(help="The sessions to take.")]
KnowledgeFiles = Annotated[
    list[str], typer.Option("--knowledge", metavar="[NAME=]FILE", help=_KNOWLEDGE)
]


def load_parts(data: str, options: DataOptions) -> dict[Part, list[Session]]:
    """All sessions by split; on stderr a warning about items without a title."""
    sessions = load_sessions(data, options)
    warn_untitled(sessions)
    return split_sessions(sessions, options)


def load_split(data: str, options: DataOptions, split: SplitName) -> list[Session]:
    """The sessions of one split; on stderr a warning about items without a title.

    Raises:
        DataError: There is none.
    """
    sessions = select_split(load_sessions(data, options), options, split)
    if not sessions:
        problem = f"the split {split!r} has no session"
        raise DataError(problem, path=data, hint="name another --split")
    warn_untitled(sessions)
    return sessions


def load_asked(data: str, options: DataOptions, split: SplitName) -> list[Session | Answer]:
    """As `load_split`, with an error in the place of each session that cannot be answered."""
    kept = load_split(data, options, split)
    # Of a seeded split, a session that was dropped is no part.
    if options.untitled == "keep" or (split != "all" and options.split_file is None):
        return [*kept]
    found, all_items = {session.id: session for session in kept}, replace(options, untitled="keep")
    every = select_split(load_sessions(data, all_items), all_items, split)
    return [found.get(session.id) or _dropped(session) for session in every]


def asked_on_stdin(options: DataOptions) -> Iterator[Session | Answer]:
    """Sessions as JSONL from standard input, each as soon as its line is there.

    In the place of a session that cannot be answered stands an error.
    """
    titles = read_extra_titles(options.extra_titles) if options.extra_titles else {}
    policies = replace(options, extra_titles=None, split_file=None)
    # With a buffer of its own: at exit a thread that waits for a line must not hold sys.stdin's.
    with open(sys.stdin.fileno(), "rb", closefd=False) as file:
        for session in sessions_from_records(parse_jsonl(file, path="<stdin>"), path="<stdin>"):
            kept = apply_options(fill_titles([session], titles), policies)
            yield kept[0] if kept else _dropped(session)


def _dropped(session: Session) -> Answer:
    problem = "fewer than two items have a title, and --untitled drop leaves the others out"
    return Answer(session.id, error=problem)


def data_record(data: str, options: DataOptions, split: SplitName) -> dict[str, str | int | None]:
    """The record of a result's sessions, ready for JSON."""
    read = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(options).items()}
    return {"data": data, **read, "split": split}


def warn_untitled(sessions: Sequence[Session]) -> None:
    """Warn on stderr about items without a title, of which a student sees nothing."""
    titled = {item.id: has_title(item) for session in sessions for item in session.items}
    untitled = list(titled.values()).count(False)
    if untitled and is_main_process():
        typer.echo(
            f"Warning: {untitled} of {len(titled)} items have no title and are shown as untitled: "
            "give --extra-titles FILE, or --untitled drop.",
            err=True,
        )


def load_knowledge(files: Sequence[str], parts: dict[Part, list[Session]]) -> KnowledgeBase:
    """The knowledge that ``--knowledge`` names, merged.

    Args:
        files: Each a path, or ``NAME=path`` for knowledge of another domain than the sessions'.
        parts: All sessions by split; no knowledge may have been made from a test session.

    Raises:
        DataError: A file cannot be read.
        SettingError: Knowledge was made from a test session, or a session's id looks like one of
            a named domain.
    """
    from routedk.data.knowledge_file import read_knowledge
    from routedk.programs.teachers.accumulate import accumulate, is_domain_name, of_domain

    ids = [session.id for session in chain(*parts.values())]
    bases = []
    for file in files:
        name, found, path = file.partition("=")
        if not found or Path(file).exists() or not is_domain_name(name):
            bases.append(read_knowledge(file))
        else:
            bases.append(of_domain(read_knowledge(path), name))
            if taken := next((i for i in ids if i.startswith(f"{name}:")), None):
                raise SettingError(
                    f"--knowledge {file}: session {taken!r} would be taken for one of {name}: "
                    "call the domain something else"
                )
        refuse_test_sessions(file, bases[-1], parts["test"])
    return bases[0] if len(bases) == 1 else accumulate(bases)


def refuse_test_sessions(file: str, base: KnowledgeBase, test: Sequence[Session]) -> None:
    """Check that knowledge was made from none of the test sessions.

    Raises:
        SettingError: It was.
    """
    from routedk.data.knowledge_file import sources_of

    names = sorted(sources_of(base) & {session.id for session in test})
    if names:
        raise SettingError(
            f"{file}: made from {len(names)} test sessions, e.g. {names[0]!r}: distill from the "
            "training split, with the same --split-file and --seed"
        )
