"""``routedk cache``: what the artifact store holds, what to remove, and whether it is whole."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routedk.cli.output import print_json, print_table
from routedk.errors import SettingError

if TYPE_CHECKING:
    from routedk.artifacts import ArtifactStore
    from routedk.artifacts.upkeep import Entry

StoreFolder = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The store; unset: the folder store in the cache that routedk info names.",
    ),
]
Stages = Annotated[
    list[str] | None,
    typer.Option("--stage", metavar="NAME", help="Only artifacts of this stage. Repeatable."),
]


def list_artifacts(
    store: StoreFolder = None,
    stage: Stages = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the artifacts of a store: stage, key, size, time since last use, seconds to make."""
    from routedk.artifacts.upkeep import entries

    found = entries(_open(store), stage or ())
    if as_json:
        print_json([_record(entry) for entry in found])
        return
    _show("Artifacts", [_row(entry) for entry in found])
    seconds = sum(entry.manifest.seconds for entry in found)
    typer.echo(f"{len(found)} artifacts, {_size(_bytes(found))}; made in {seconds:.1f} s")


def prune(
    store: StoreFolder = None,
    stage: Stages = None,
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="Remove what was not used for so many days."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Remove the longest unused until the rest is at most so large, e.g. 500MB, 2GiB.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
) -> None:
    """Remove artifacts by stage, age or size; by age alone also abandoned work folders.

    What is removed is made again when it is needed. Do not remove what a running command is
    using: give an age.
    """
    from routedk.artifacts.upkeep import PruneRules, abandoned, prunable, remove, remove_work

    rules = PruneRules(
        stages=tuple(stage or ()), older_than=older_than, max_bytes=_parse_size(max_size)
    )
    opened = _open(store)
    going = prunable(opened, rules)
    rows = {entry.folder: _row(entry) for entry in going}
    work = [] if stage or older_than is None else abandoned(opened, older_than)
    if not dry_run:
        gone = remove(opened, list(rows))
        going = [entry for entry in going if entry.folder in gone]
        remove_work(opened, work)
    _show("Would be removed" if dry_run else "Removed", [rows[entry.folder] for entry in going])
    verb = "would be removed" if dry_run else "removed"
    size = _size(_bytes(going))
    typer.echo(f"{len(going)} artifacts, {size}, and {len(work)} unfinished {verb}")


def verify(
    store: StoreFolder = None,
    stage: Stages = None,
    remove_broken: Annotated[
        bool, typer.Option("--remove", help="Remove broken artifacts: they are made again.")
    ] = False,
) -> None:
    """Read every artifact again and compare it with the hashes recorded when it was made.

    Ends with code 1 where one is broken.
    """
    from routedk.artifacts.upkeep import broken, remove

    opened = _open(store)
    found = list(broken(opened, stage or ()))
    for folder, problems in found:
        for problem in problems:
            typer.echo(f"{folder.parent.name}/{folder.name}: {problem}", err=True)
    if not found:
        typer.echo("All artifacts are whole.")
        return
    if remove_broken:
        remove(opened, [folder for folder, _ in found])
    advice = "removed" if remove_broken else "--remove removes them, and they are made again"
    typer.echo(f"{len(found)} artifacts are broken: {advice}", err=True)
    raise typer.Exit(1)


def _open(folder: Path | None) -> "ArtifactStore":
    from routedk.artifacts import ArtifactStore

    if folder is not None and not folder.is_dir():
        raise SettingError(f"--store {folder}: no such folder")
    return ArtifactStore(folder)


def _parse_size(text: str | None) -> int | None:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    if text is None:
        return None
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise SettingError(
            f"--max-size {text!r}: a number of bytes, or one with a unit, e.g. 500MB or 2GiB"
        ) from None


def _row(entry: "Entry") -> tuple[str, ...]:
    manifest = entry.manifest
    passed = datetime.now(UTC) - datetime.fromtimestamp(entry.used, UTC)
    hours, minutes = divmod(int(passed.total_seconds()) // 60, 60)
    age = f"{passed.days} d" if passed.days else f"{hours} h {minutes:02} min"
    seconds = f"{manifest.seconds:.1f}"
    return (manifest.stage, manifest.key[:12], _size(manifest.size), age, seconds)


def _show(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    if rows:
        print_table(title, ("stage", "key", "size", "unused for", "seconds"), rows)


def _record(entry: "Entry") -> dict[str, object]:
    manifest = entry.manifest
    return {
        "stage": manifest.stage,
        "key": manifest.key,
        "folder": str(entry.folder),
        "size": manifest.size,
        "seconds": manifest.seconds,
        "created": manifest.created,
        "used": datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds"),
    }


def _bytes(entries: Iterable["Entry"]) -> int:
    return sum(entry.manifest.size for entry in entries)


def _size(count: int) -> str:
    from pydantic import ByteSize

    return ByteSize(count).human_readable(decimal=True, separator=" ")
