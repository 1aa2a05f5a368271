"""Artifacts at a URL of fsspec's, such as ``s3://BUCKET/PATH``: one archive each.

Whoever may write there is trusted.
"""

import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from routedk.errors import ArtifactError, SettingError

_FOLDER = "artifact"


def fetch(url: str, stage: str, key: str, folder: Path) -> None:
    """Copy an artifact, if it is there, to a folder that is not, whole or not at all.

    Raises:
        ArtifactError: Its archive is damaged.
        SettingError: fsspec does not know such URLs, or lacks a package for them.
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
    """Copy an artifact to the URL, whole or not at all; False where another one is there."""
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
    """A file system of its own, as its transaction is, and the place of an artifact in it."""
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url, skip_instance_cache=True)
    except (ImportError, ValueError) as error:
        raise SettingError(f"store {url}: {error}") from None
    return files, f"{root.rstrip('/')}/{stage}/{key}.tar"
