"""``routedk data``: describes a source of sessions, or converts it to another format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from routedk.cli.config_options import with_config_options
from routedk.cli.output import print_json, print_table
from routedk.cli.sessions import DataArgument, Split, data_record, load_split
from routedk.data import DataOptions, has_title, write_jsonl, write_parquet
from routedk.errors import SettingError
from routedk.types import Session

_WRITERS = {".jsonl": write_jsonl, ".parquet": write_parquet}


@with_config_options
def describe(
    data: DataArgument,
    options: DataOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    split: Split = "all",
) -> None:
    """Count the sessions, items and bundles of a source, under the policies.

    Items are counted by distinct id over all sessions; bundles are gold bundles.

    Example: routedk data describe demo --json
    """
    counts = _count(load_split(data, options, split))
    if as_json:
        print_json({**counts, "config": data_record(data, options, split)})
    else:
        title = f"{data} (split {split}, gold {options.gold}, untitled {options.untitled})"
        rows = [(name.replace("_", " "), number) for name, number in counts.items()]
        print_table(title, ("what", "count"), rows)


@with_config_options
def convert(
    data: DataArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .jsonl or .parquet.")],
    options: DataOptions,
    split: Split = "all",
) -> None:
    """Write the sessions, as the policies leave them, to a JSONL or Parquet file.

    Example: routedk data convert bundlerec/clothing clothing.jsonl
    """
    if out.suffix not in _WRITERS:
        raise SettingError(f"{out}: the name must end in one of {', '.join(_WRITERS)}")
    # A converted file cannot be told apart from a user's own sessions.
    if out.exists():
        raise SettingError(f"{out}: exists already: name another file, or remove it")
    sessions = load_split(data, options, split)
    _WRITERS[out.suffix](out, sessions)
    typer.echo(f"wrote {len(sessions)} sessions to {out}")


def _count(sessions: Sequence[Session]) -> dict[str, int]:
    titled = {item.id: has_title(item) for session in sessions for item in session.items}
    return {
        "sessions": len(sessions),
        "sessions_with_bundles": sum(bool(session.bundles) for session in sessions),
        "sessions_not_annotated": sum(session.bundles is None for session in sessions),
        "bundles": sum(len(session.bundles or ()) for session in sessions),
        "items": len(titled),
        "items_without_title": sum(not has for has in titled.values()),
    }
