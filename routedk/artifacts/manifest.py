"""``manifest.json`` of an artifact: what it was made from, how long it took, and its files."""

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routedk.errors import ArtifactError, DataError
from routedk.files import read_json

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    """One file of an artifact.

    Args:
        size: In bytes.
        sha256: Of its content, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int = Field(ge=0)
    sha256: str


class Manifest(BaseModel):
    """What a store knows about an artifact.

    Args:
        stage: The kind of artifact.
        key: The hash of its recipe.
        recipe: What it was made from.
        seconds: How long making it took.
        created: When it was finished, in UTC, ISO 8601.
        files: Its files by their path in its folder, the manifest left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    stage: str
    key: str
    recipe: dict[str, Any]
    seconds: float = Field(ge=0)
    created: str
    files: dict[str, FileEntry]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(read_json(path))
    except DataError as error:
        raise ArtifactError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise ArtifactError(f"{path}: damaged manifest: {place}: {first['msg']}") from None


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file in a folder, the manifest left out, sorted by path."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries[path.relative_to(folder).as_posix()] = FileEntry(
                size=path.stat().st_size, sha256=digest
            )
    return entries


def size_problems(folder: Path, manifest: Manifest) -> list[str]:
    """Missing files and wrong sizes, one text a file; contents are not read."""
    problems = []
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != entry.size:
            problems.append(f"{name} has {path.stat().st_size} bytes, not {entry.size}")
    return problems


def content_problems(folder: Path) -> list[str]:
    """Everything wrong with an artifact, every byte read, one text a file; empty where whole."""
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        return [str(error)]
    problems = size_problems(folder, manifest)
    if (manifest.stage, manifest.key) != (folder.parent.name, folder.name):
        problems.append(f"the manifest belongs to {manifest.stage}/{manifest.key}")
    for name, entry in file_entries(folder).items():
        known = manifest.files.get(name)
        if known is None:
            problems.append(f"{name} is not in the manifest")
        elif known.size == entry.size and known.sha256 != entry.sha256:
            problems.append(f"{name} has SHA-256 {entry.sha256}, not {known.sha256}")
    return problems
