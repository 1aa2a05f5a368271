"""``routedk cache``: what a search keeps, what of it may go, and whether it is whole."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routedk.cache import cache_folder
from routedk.cli.output import print_json, print_table
from routedk.errors import SettingError

if TYPE_CHECKING:
    from routedk.artifacts.store import Part, Store

STORE_FOLDER = "store"

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
    typer.Option("--stage", metavar="NAME", help="Only parts of this stage. Repeatable."),
]


def list_parts(
    store: StoreFolder = None,
    stage: Stages = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the parts of a store: stage, key, size, age, and what making them took.

    A part's age is the time since a search last used it.
    """
    parts = [part for part in _open(store).parts() if not stage or part.manifest.stage in stage]
    if as_json:
        print_json([_entry(part) for part in parts])
        return
    _show("Parts", [_row(part) for part in parts])
    seconds = sum(part.manifest.seconds for part in parts)
    typer.echo(f"{len(parts)} parts, {_size(_bytes(parts))}; making them took {seconds:.1f} s")


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
        bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")
    ] = False,
) -> None:
    """Remove parts by stage, age or size; by age alone also unfinished work that nobody is at.

    Parts that are removed are made again when a trial wants them. Do not remove what a running
    search is using: take an age.
    """
    from routedk.artifacts.upkeep import (
        PruneRules,
        abandoned,
        pruned,
        remove,
        remove_work,
    )

    rules = PruneRules(
        stages=tuple(stage or ()), older_than=older_than, max_bytes=_parse_size(max_size)
    )
    opened = _open(store)
    going = {part.folder: part for part in pruned(opened, rules)}
    rows = {folder: _row(part) for folder, part in going.items()}
    work = [] if stage or older_than is None else abandoned(opened, older_than)
    if not dry_run:
        gone = remove(opened, list(going))
        going = {folder: going[folder] for folder in gone}
        remove_work(opened, work)
    _show("Would be removed" if dry_run else "Removed", [rows[folder] for folder in going])
    verb = "would be removed" if dry_run else "removed"
    size = _size(_bytes(going.values()))
    typer.echo(f"{len(going)} parts, {size}, and {len(work)} unfinished {verb}")


def verify(
    store: StoreFolder = None,
    stage: Stages = None,
    remove_broken: Annotated[
        bool, typer.Option("--remove", help="Remove broken parts: they are made again.")
    ] = False,
) -> None:
    """Read every part again and compare it with the hashes noted when it was made.

    Ends with code 1 where one is broken.
    """
    from routedk.artifacts.upkeep import broken, remove

    opened = _open(store)
    found = list(broken(opened, tuple(stage or ())))
    for folder, problems in found:
        for problem in problems:
            typer.echo(f"{folder.parent.name}/{folder.name}: {problem}", err=True)
    if not found:
        typer.echo("All parts are whole.")
        return
    if remove_broken:
        remove(opened, [folder for folder, _ in found])
    advice = "removed" if remove_broken else "--remove removes them, and they are made again"
    typer.echo(f"{len(found)} parts are broken: {advice}", err=True)
    raise typer.Exit(1)


def _open(folder: Path | None) -> "Store":
    from routedk.artifacts.store import Store

    if folder is not None and not folder.is_dir():
        raise SettingError(f"--store {folder}: no such folder")
    return Store(folder or default_store())


def default_store() -> Path:
    """The folder of the store where none is named."""
    return cache_folder() / STORE_FOLDER


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


def _row(part: "Part") -> tuple[str, ...]:
    manifest = part.manifest
    size, seconds = _size(manifest.size), f"{manifest.seconds:.1f}"
    return (manifest.stage, part.key[:12], size, _age(part), seconds)


def _show(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    if rows:
        print_table(title, ("stage", "key", "size", "unused for", "seconds"), rows)


def _entry(part: "Part") -> dict[str, object]:
    from routedk.artifacts.upkeep import last_used

    return {
        "stage": part.manifest.stage,
        "key": part.key,
        "folder": str(part.folder),
        "size": part.manifest.size,
        "seconds": part.manifest.seconds,
        "created": part.manifest.created,
        "used": datetime.fromtimestamp(last_used(part), UTC).isoformat(timespec="seconds"),
    }


def _age(part: "Part") -> str:
    from routedk.artifacts.upkeep import last_used

    passed = datetime.now(UTC) - datetime.fromtimestamp(last_used(part), UTC)
    hours, minutes = divmod(int(passed.total_seconds()) // 60, 60)
    return f"{passed.days} d" if passed.days else f"{hours} h {minutes:02} min"


def _bytes(parts: Iterable["Part"]) -> int:
    return sum(part.manifest.size for part in parts)


def _size(count: int) -> str:
    from pydantic import ByteSize

    return ByteSize(count).human_readable(decimal=True, separator=" ")
