"""``routedk cache``: what the artifact store holds, what to remove, and whether it is whole."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routedk.artifacts import ArtifactStore
from routedk.cli.output import print_json, print_table
from routedk.errors import SettingError

if TYPE_CHECKING:
    from routedk.artifacts.upkeep import Entry

StoreFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The artifact store; unset: the one in the cache folder."),
]
Stages = Annotated[
    list[str],
    typer.Option("--stage", metavar="NAME", help="Only artifacts of this stage. Repeatable."),
]


def list_artifacts(
    store: StoreFolder = None,
    stage: Stages = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the artifacts of a store: stage, key, size, days since last use, seconds to make.

    Example: routedk cache list --stage experts
    """
    from routedk.artifacts.upkeep import entries

    found = entries(_open(store), stage)
    if as_json:
        print_json([_record(entry) for entry in found])
    else:
        _show("Artifacts", found)
        typer.echo(_total(found))


def prune(
    store: StoreFolder = None,
    stage: Stages = [],  # noqa: B006
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="Remove what was not used for so many days."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Remove the longest unused beyond, e.g., 500MB or 2GiB."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only tell.")] = False,
) -> None:
    """Remove artifacts by stage, age or size; by age alone also abandoned work folders.

    What is removed is made again when it is needed. Do not remove what a running command is
    using: give an age.

    Example: routedk cache prune --older-than 30 --max-size 2GB --dry-run
    """
    from routedk.artifacts.upkeep import PruneRules, abandoned, prunable, remove, remove_work

    most = None if max_size is None else _parse_size(max_size)
    rules = PruneRules(stages=tuple(stage), older_than=older_than, max_bytes=most)
    opened = _open(store)
    going = prunable(opened, rules)
    work = [] if stage or older_than is None else abandoned(opened, older_than)
    if not dry_run:
        gone = remove(opened, [entry.folder for entry in going])
        going = [entry for entry in going if entry.folder in gone]
        remove_work(opened, work)
    verb = "would be removed" if dry_run else "removed"
    _show(verb.capitalize(), going)
    typer.echo(f"{_total(going)}, and {len(work)} unfinished {verb}")


def verify(
    store: StoreFolder = None,
    stage: Stages = [],  # noqa: B006
    remove_broken: Annotated[
        bool, typer.Option("--remove", help="Remove broken artifacts: they are made again.")
    ] = False,
) -> None:
    """Read every artifact again and compare it with the hashes recorded when it was made.

    Ends with code 1 where one is broken.

    Example: routedk cache verify
    """
    from routedk.artifacts.upkeep import broken, remove

    opened = _open(store)
    found = dict(broken(opened, stage))
    if not found:
        typer.echo("All artifacts are whole.")
        return
    for folder, problems in found.items():
        for problem in problems:
            typer.echo(f"{folder.parent.name}/{folder.name}: {problem}", err=True)
    if remove_broken:
        remove(opened, list(found))
    advice = "removed" if remove_broken else "--remove removes them, and they are made again"
    typer.echo(f"{len(found)} artifacts are broken: {advice}", err=True)
    raise typer.Exit(1)


def _open(folder: Path | None) -> ArtifactStore:
    if folder is not None and not folder.is_dir():
        raise SettingError(f"--store {folder}: no such folder")
    return ArtifactStore(folder)


def _parse_size(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise SettingError(
            f"--max-size {text!r}: a number of bytes, or one with a unit, e.g. 500MB or 2GiB"
        ) from None


def _record(entry: "Entry") -> dict[str, object]:
    manifest = entry.manifest
    return {
        **{
            name: getattr(manifest, name) for name in ("stage", "key", "size", "seconds", "created")
        },
        "folder": str(entry.folder),
        "used": datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds"),
    }


def _show(title: str, entries: Sequence["Entry"]) -> None:
    rows = []
    for entry in entries:
        kept, days = entry.manifest, (time.time() - entry.used) / 86_400
        size, seconds = _size(kept.size), f"{kept.seconds:.1f}"
        rows.append((kept.stage, kept.key[:12], size, f"{days:.1f}", seconds))
    if rows:
        print_table(title, ("stage", "key", "size", "days unused", "seconds"), rows)


def _total(entries: Sequence["Entry"]) -> str:
    return f"{len(entries)} artifacts, {_size(sum(entry.manifest.size for entry in entries))}"


def _size(count: int) -> str:
    from pydantic import ByteSize

    return ByteSize(count).human_readable(decimal=True, separator=" ")
