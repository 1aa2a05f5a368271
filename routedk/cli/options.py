"""The options of every command that reads sessions, said once."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from routedk.data import (
    DataOptions,
    GoldPolicy,
    Part,
    SplitName,
    UntitledPolicy,
    has_title,
    load_sessions,
    select_split,
    split_sessions,
)
from routedk.errors import SettingError
from routedk.types import KnowledgeBase, Session

_SOURCE_HELP = "A .jsonl or .parquet file, a BundleRec folder, or demo for the embedded set."
_PANEL = "Sessions"

ExtraTitles = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="CSV of titles for untitled items.", rich_help_panel=_PANEL),
]
Gold = Annotated[
    GoldPolicy,
    typer.Option(
        help="Gold bundles: minimal drops duplicates and supersets, all keeps them.",
        rich_help_panel=_PANEL,
    ),
]
Untitled = Annotated[
    UntitledPolicy,
    typer.Option(
        help="Items without a title: keep, or drop (leaks the answer on BundleRec).",
        rich_help_panel=_PANEL,
    ),
]
SplitFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSON of session ids by split; without it 7:1:2 by the seed.",
        rich_help_panel=_PANEL,
    ),
]
Split = Annotated[SplitName, typer.Option(help="The sessions to take.", rich_help_panel=_PANEL)]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all chance.", rich_help_panel=_PANEL)]

KnowledgeFiles = Annotated[
    list[str],
    typer.Option(
        "--knowledge",
        metavar="[NAME=]FILE",
        help="A knowledge.jsonl of distill; NAME= where it is of another domain. Repeatable.",
    ),
]

UtilizationName = Annotated[
    str | None,
    typer.Option(
        "--utilization",
        metavar="NAME",
        help="Where knowledge is used: ICL (in the prompt), SFT (in the experts' training) or "
        "SFT+ICL. Unset: as validation says.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class SessionSource:
    """What the options name: a source of sessions, the policies, and one split of it.

    Args:
        path: Path as given, or ``demo``.
        options: Policies, split file and seed.
        split: The split asked for.
    """

    path: str
    options: DataOptions
    split: SplitName

    def load(self) -> list[Session]:
        """The sessions of the split asked for."""
        return select_split(load_sessions(self.path, self.options), self.options, self.split)

    def load_parts(self) -> dict[Part, list[Session]]:
        """The sessions of all three splits, whatever split was asked for."""
        return split_sessions(load_sessions(self.path, self.options), self.options)

    def config(self) -> dict[str, str | int | None]:
        """What a result has to state about its data, ready for JSON."""
        return {
            "data": self.path,
            **self.reading(str),
            "split": self.split,
            "seed": self.options.seed,
        }

    def reading(
        self, shown: Callable[[Path], str] = lambda path: path.name
    ) -> dict[str, str | None]:
        """How sessions are read, ready for JSON.

        Args:
            shown: What to say of a file; its name alone is what a study keeps.
        """
        options = self.options
        return {
            "extra_titles": None if options.extra_titles is None else shown(options.extra_titles),
            "gold": options.gold,
            "untitled": options.untitled,
            "split_file": None if options.split_file is None else shown(options.split_file),
        }


def takes_sessions(
    *, split: SplitName, argument: bool = False, default: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the shared options; it gets them as its first parameter, a SessionSource.

    Example::

        @takes_sessions(split="test")
        def evaluate(source: SessionSource, output: Annotated[Path, typer.Option()]) -> None: ...

    Args:
        split: Default of ``--split``.
        argument: Whether the source is the first argument, ``PATH``, instead of ``--data``.
        default: Source where none is given; None makes it required.
    """
    kind = (
        typer.Argument(metavar="PATH", help=_SOURCE_HELP)
        if argument
        else typer.Option("--data", metavar="PATH", help=_SOURCE_HELP, rich_help_panel=_PANEL)
    )
    shared = [
        _parameter(
            "data", Annotated[str, kind], inspect.Parameter.empty if default is None else default
        ),
        _parameter("extra_titles", ExtraTitles, None),
        _parameter("gold", Gold, "minimal"),
        _parameter("untitled", Untitled, "keep"),
        _parameter("split_file", SplitFile, None),
        _parameter("split", Split, split),
        _parameter("seed", Seed, 0),
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        first, *own = signature.parameters.values()

        @wraps(command)
        def run(**values: Any) -> None:
            path, chosen = values.pop("data"), values.pop("split")
            names = ("extra_titles", "gold", "untitled", "split_file", "seed")
            options = DataOptions(**{name: values.pop(name) for name in names})
            source = SessionSource(path=path, options=options, split=chosen)
            command(**{first.name: source}, **values)

        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        arguments, options = [shared[0]], shared[1:]
        parameters = [*arguments, *own, *options]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def warn_untitled(sessions: Sequence[Session]) -> None:
    """Say on stderr how many items have no title: a student sees nothing of them."""
    items = {item.id: item for session in sessions for item in session.items}
    untitled = sum(not has_title(item) for item in items.values())
    if untitled:
        typer.echo(
            f"Warning: {untitled} of {len(items)} items have no title and are shown as untitled: "
            "give --extra-titles FILE, or --untitled drop.",
            err=True,
        )


def load_knowledge(
    files: Sequence[str], sessions: Iterable[Session], test: Sequence[Session]
) -> KnowledgeBase:
    """The knowledge that ``--knowledge`` names, merged.

    Args:
        files: Each a path, or ``NAME=path`` for knowledge of a domain other than this one.
        sessions: All sessions that the knowledge is used for.
        test: Those of them that no knowledge may be made from.

    Raises:
        DataError: A file cannot be read.
        SettingError: Knowledge was made from a test session, or a session's id looks like one of
            a named domain.
    """
    from routedk.data.knowledge_file import read_knowledge
    from routedk.programs.teachers.accumulate import accumulate, is_domain_name, of_domain

    ids = [session.id for session in sessions]
    bases = []
    for file in files:
        name, found, path = file.partition("=")
        if not found or Path(file).exists() or not is_domain_name(name):
            base, path = read_knowledge(file), file
        else:
            base = of_domain(read_knowledge(path), name)
            if taken := next((mine for mine in ids if mine.startswith(f"{name}:")), None):
                raise SettingError(
                    f"--knowledge {file}: session {taken!r} would be taken for one of {name}: "
                    "call the domain something else"
                )
        refuse_test_sessions(base, test, Path(path))
        bases.append(base)
    return bases[0] if len(bases) == 1 else accumulate(bases)


def refuse_test_sessions(base: KnowledgeBase, test: Sequence[Session], path: Path) -> None:
    """Check that no test session is among those that knowledge was made from.

    Args:
        base: The knowledge.
        test: The test sessions.
        path: Its file, for the message.

    Raises:
        SettingError: When one is.
    """
    from routedk.data.knowledge_file import sources_of

    names = sorted(sources_of(base) & {session.id for session in test})
    if names:
        raise SettingError(
            f"{path}: made from {len(names)} test sessions, e.g. {names[0]!r}: distil from the "
            "training split, with the same --split-file and --seed"
        )


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )
