"""``manifest.json`` of a part: what made it, what it cost, and what its files must be."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routedk.errors import ArtifactError, DataError
from routedk.files import read_json

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    """One file of a part.

    Args:
        size: In bytes.
        sha256: Of its content, hex.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int = Field(ge=0)
    sha256: str


class Manifest(BaseModel):
    """What is known of a part.

    Args:
        schema_version: Of this layout.
        stage: What kind of part it is.
        key: The hash of its recipe.
        recipe: What it was made of.
        seconds: What making it took; of attempts that were killed, up to the last file written.
        created: When it was finished, in UTC, ISO 8601.
        files: Its files by their path inside the part, the manifest itself left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
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
    """The manifest of a part.

    Raises:
        ArtifactError: It is missing, damaged, or of another schema.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(read_json(path))
    except DataError as error:
        raise ArtifactError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ArtifactError(f"{path}: the manifest is damaged: {place}: {first['msg']}") from None


def entries_of(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file in a folder, the manifest left out, sorted by path."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(
            size=path.stat().st_size, sha256=_sha256(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def missing_or_cut(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What a look at names and sizes finds wrong, one text a file; contents are not read."""
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != entry.size:
            yield f"{name} has {path.stat().st_size} bytes, not {entry.size}"


def problems(folder: Path) -> list[str]:
    """What is wrong with a part, every byte read: one text for each file; empty where nothing is.

    Args:
        folder: Of the part.
    """
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        return [str(error)]
    found = list(missing_or_cut(folder, manifest))
    if (manifest.stage, manifest.key) != (folder.parent.name, folder.name):
        found.append(f"the manifest is that of {manifest.stage}/{manifest.key}")
    here = entries_of(folder)
    for name, entry in here.items():
        known = manifest.files.get(name)
        if known is None:
            found.append(f"{name} is not in the manifest")
        elif known.size == entry.size and known.sha256 != entry.sha256:
            found.append(f"{name} has SHA-256 {entry.sha256}, not {known.sha256}")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
