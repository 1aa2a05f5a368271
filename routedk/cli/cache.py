"""``routedk cache``: lists what the artifact store holds, and removes what is no longer needed."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ByteSize

from routedk.artifacts import ArtifactStore
from routedk.artifacts.upkeep import Entry, PruneConfig, entries
from routedk.artifacts.upkeep import prune as remove_unused
from routedk.cli.config_options import with_config_options
from routedk.cli.output import STORE, print_json, print_table

StoreFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", exists=True, file_okay=False, help=STORE)
]
Stages = Annotated[
    list[str], typer.Option("--stage", help="Only artifacts of this stage. Repeatable.")
]


def list_artifacts(
    store: StoreFolder = None,
    stage: Stages = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List what a store holds: stage, key, size, days since last use, seconds to make.

    Unfinished artifacts have no seconds yet. Journals of teachers are not listed.

    Example: routedk cache list --stage experts
    """
    found = entries(ArtifactStore(store), stage)
    if as_json:
        print_json([_record(entry) for entry in found])
    else:
        _show("Artifacts", found)


@with_config_options
def prune(config: PruneConfig, store: StoreFolder = None) -> None:
    """Remove artifacts and unfinished leftovers, by stage, age or size.

    Whatever is removed is made again when needed. To keep what a running command is using, give
    an age.

    Example: routedk cache prune --older-than 30 --max-size 2GB --dry-run
    """
    gone = remove_unused(ArtifactStore(store), config)
    _show("Would be removed" if config.dry_run else "Removed", gone)


def _show(title: str, found: Sequence[Entry]) -> None:
    if found:
        columns = ("stage", "key", "size", "days unused", "seconds")
        print_table(title, columns, map(_row, found))
    typer.echo(f"{title}: {len(found)}, {_size(sum(entry.size for entry in found))}")


def _row(entry: Entry) -> tuple[object, ...]:
    days = f"{(time.time() - entry.used) / 86_400:.1f}"
    seconds = "unfinished" if entry.seconds is None else entry.seconds
    return (entry.stage, entry.key[:12], _size(entry.size), days, seconds)


def _record(entry: Entry) -> dict[str, object]:
    used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
    return asdict(entry) | {"folder": str(entry.folder), "used": used}


def _size(count: int) -> str:
    return ByteSize(count).human_readable(decimal=True, separator=" ")
