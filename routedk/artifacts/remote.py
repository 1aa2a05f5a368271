"""Artifacts at an fsspec URL, such as ``s3://BUCKET/PATH``: one archive each.

Whoever can write there is trusted.
"""

import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from routedk.errors import ArtifactError, SettingError

_FOLDER = "artifact"


def fetch(url: str, stage: str, key: str, folder: Path) -> None:
    """Download an artifact, if it exists, to a new folder, completely or not at all.

    Raises:
        ArtifactError: Its archive is damaged.
        SettingError: fsspec does not support such URLs, or lacks a package for them.
    """
    files, place = _open(url, stage, key)
    if not files.exists(place):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parents[2]) as scratch:
        try:
            with files.open(place) as file, tarfile.open(fileobj=file, mode="r|") as archive:
                archive.extractall(scratch, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise ArtifactError(f"{url}: {place}: {error}: remove it") from error
        # Another process may have been faster.
        with suppress(OSError):
            Path(scratch, _FOLDER).rename(folder)


def share(url: str, stage: str, key: str, folder: Path) -> bool:
    """Upload an artifact, completely or not at all; return False if there is one already."""
    files, place = _open(url, stage, key)
    if files.exists(place):
        return False
    files.makedirs(place.rpartition("/")[0], exist_ok=True)
    with (
        files.transaction,
        files.open(place, "wb") as file,
        tarfile.open(fileobj=file, mode="w|") as archive,
    ):
        archive.add(folder, arcname=_FOLDER)
    return True


def _open(url: str, stage: str, key: str) -> tuple[Any, str]:
    """A file system with its own transaction, and the path of an artifact in it."""
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url, skip_instance_cache=True)
    except (ImportError, ValueError) as error:
        raise SettingError(f"store {url}: {error}") from None
    return files, f"{root.rstrip('/')}/{stage}/{key}.tar"
