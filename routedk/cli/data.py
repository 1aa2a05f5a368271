"""``routedk data``: what a source of sessions holds, and the same in another format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from routedk.cli.options import SessionSource, takes_sessions
from routedk.cli.output import print_json, print_table
from routedk.data import has_title, write_jsonl, write_parquet
from routedk.errors import DataError, SettingError
from routedk.types import Session

_WRITERS = {".jsonl": write_jsonl, ".parquet": write_parquet}


@takes_sessions(split="all", argument=True)
def describe(
    source: SessionSource,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Count what a source holds, under the policies.

    Items are distinct ids over all sessions; a bundle is a gold bundle.
    """
    counts = count(source.load())
    if as_json:
        print_json({**counts, "config": source.config()})
        return
    options = source.options
    title = (
        f"{source.path} (split {source.split}, gold {options.gold}, untitled {options.untitled})"
    )
    rows = [
        (name.replace("items", "distinct items").replace("_", " "), number)
        for name, number in counts.items()
    ]
    print_table(title, ("what", "count"), rows)


@takes_sessions(split="all", argument=True)
def convert(
    source: SessionSource,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .jsonl or .parquet.")],
) -> None:
    """Write the sessions, as the policies leave them, to a JSONL or Parquet file."""
    if out.suffix not in _WRITERS:
        raise SettingError(f"{out}: the name must end in one of {', '.join(_WRITERS)}")
    sessions = source.load()
    if not sessions:
        raise DataError(
            f"the split {source.split!r} has no session",
            path=source.path,
            hint="name another --split",
        )
    _WRITERS[out.suffix](out, sessions)
    typer.echo(f"wrote {len(sessions)} sessions to {out}")


def count(sessions: Sequence[Session]) -> dict[str, int]:
    """The counts of ``routedk data describe``; items are distinct ids."""
    titled = {item.id: has_title(item) for session in sessions for item in session.items}
    return {
        "sessions": len(sessions),
        "sessions_with_bundles": sum(bool(session.bundles) for session in sessions),
        "sessions_not_annotated": sum(session.bundles is None for session in sessions),
        "bundles": sum(len(session.bundles or ()) for session in sessions),
        "items": len(titled),
        "items_without_title": sum(not has for has in titled.values()),
    }
