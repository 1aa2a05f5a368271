"""The sessions and the knowledge that a command works on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from routedk.cli.output import is_main_process
from routedk.data import DataOptions, SplitName, load_sessions, select_split, split_sessions
from routedk.data.load import scan_sessions
from routedk.data.policies import drop_untitled, has_title
from routedk.data.records import UnreadSession
from routedk.errors import DataError, SettingError
from routedk.types import Answer, KnowledgeBase, Session

_SOURCE = "A .jsonl, .parquet or .csv file or a folder of these, a BundleRec folder, or demo."
_KNOWLEDGE = "A knowledge.jsonl of distill; NAME= where it is of another domain. Repeatable."

DataPath = Annotated[str, typer.Option("--data", metavar="PATH", help=_SOURCE)]
StreamPath = Annotated[
    str, typer.Option("--data", metavar="PATH", help=f"{_SOURCE[:-1]}; - is standard input.")
]
DataArgument = Annotated[str, typer.Argument(metavar="PATH", help=_SOURCE)]
Split = Annotated[SplitName, typer.Option(help="The sessions to take.")]
KnowledgeFiles = Annotated[
    list[str], typer.Option("--knowledge", metavar="[NAME=]FILE", help=_KNOWLEDGE)
]

_Asked = TypeVar("_Asked", bound=Session | Answer)


def load_parts(
    data: str, options: DataOptions, needed: SplitName = "all"
) -> dict[SplitName, list[Session]]:
    """Load all sessions by split; warn on stderr about items without a title in the needed one.

    Raises:
        DataError: The needed split has no session.
    """
    sessions = load_sessions(data, options)
    parts = dict[SplitName, list[Session]](split_sessions(sessions, options).items())
    # A split file may leave sessions out.
    parts["all"] = [*chain.from_iterable(parts.values())]
    for _ in warn_untitled(parts[needed]):
        pass
    parts["all"] = sessions
    if not parts[needed]:
        problem = f"the split {needed!r} has no session"
        raise DataError(problem, path=data, hint="name another --split")
    return parts


def load_split(data: str, options: DataOptions, split: SplitName) -> list[Session]:
    """The sessions of one split, as `load_parts` loads them."""
    return load_parts(data, options, split)[split]


def sessions_to_answer(
    data: str, options: DataOptions, split: SplitName
) -> tuple[Iterable[Session | Answer], int | None]:
    """The sessions of one split, with an error in the place of each that cannot be answered.

    The split ``all`` is streamed, since it may not fit in memory; on standard input, ``-``, each
    session comes as soon as its line arrives.

    Returns:
        The sessions and their number; None if they are streamed.
    """
    all_items = replace(options, untitled="keep")
    if split == "all":
        # The split file plays no part: sessions that it names may be missing.
        every = scan_sessions(data, replace(all_items, split_file=None))
        return warn_untitled(_asked(one, options) for one in every), None
    # A seeded split does not contain the sessions that were dropped.
    if options.untitled == "keep" or options.split_file is None:
        listed: list[Session | Answer] = [*load_split(data, options, split)]
    else:
        those = select_split(load_sessions(data, all_items), all_items, split)
        listed = [_asked(one, options) for one in those]
    return listed, len(listed)


def _asked(one: Session | UnreadSession, options: DataOptions) -> Session | Answer:
    if isinstance(one, UnreadSession):
        return Answer(one.id, error=str(one.error))
    kept = drop_untitled(one) if options.untitled == "drop" else one
    problem = "fewer than two items have a title, and --untitled drop leaves the others out"
    return kept or Answer(one.id, error=problem)


def data_record(data: str, options: DataOptions, split: SplitName) -> dict[str, str | int | None]:
    """The record of where a result's sessions came from, ready for JSON."""
    read = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(options).items()}
    return {"data": data, **read, "split": split}


def warn_untitled(sessions: Iterable[_Asked]) -> Iterator[_Asked]:
    """Yield the sessions; after the last, warn about items without a title."""
    items = untitled = 0
    for session in sessions:
        yield session
        if isinstance(session, Session):
            items += len(session.items)
            untitled += sum(not has_title(item) for item in session.items)
    if untitled and is_main_process():
        typer.echo(
            f"Warning: {untitled} of {items} items have no title and are shown as untitled: "
            "give --extra-titles FILE, or --untitled drop.",
            err=True,
        )


def load_knowledge(files: Sequence[str], parts: Mapping[SplitName, list[Session]]) -> KnowledgeBase:
    """Load and merge the knowledge that ``--knowledge`` names.

    Args:
        files: Each a path, or ``NAME=path`` for knowledge from a different domain.
        parts: All sessions by split; no knowledge may have been made from a test session.

    Raises:
        DataError: A file cannot be read, or holds no knowledge.
        SettingError: Knowledge was made from a test session, or a session's id looks like one of
            a named domain.
    """
    from routedk.data.knowledge_file import read_knowledge
    from routedk.programs.teachers.accumulate import accumulate, is_domain_name, of_domain

    ids = [session.id for session in parts["all"]]
    bases = []
    for file in files:
        name, found, path = file.partition("=")
        named = found and not Path(file).exists() and is_domain_name(name)
        base = read_knowledge(path if named else file)
        if not base.pieces:
            raise DataError("holds no knowledge", path=file, hint="distill it again")
        if named and (taken := next((i for i in ids if i.startswith(f"{name}:")), None)):
            raise SettingError(
                f"--knowledge {file}: session {taken!r} would be taken for one of {name}: call the "
                "domain something else"
            )
        bases.append(of_domain(base, name) if named else base)
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
