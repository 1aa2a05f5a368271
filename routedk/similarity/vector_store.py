"""Vectors of texts on disk, so that no text is encoded twice on one machine."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routedk.errors import ArtifactError, DataError
from routedk.files import atomic_write

_MIN_BATCH = 32  # below this, encoding again is cheaper than one more file to read
_KEY_BYTES = 16


class VectorStore:
    """A folder of safetensors files, each with some vectors and the hashes of their texts.

    Files are only ever added, so several processes may share a folder. The texts themselves are
    not stored.

    Args:
        folder: Where the files are; one folder per encoder and version. Made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._vectors: dict[bytes, NDArray[np.float32]] | None = None

    def get(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of those texts that are stored.

        Raises:
            ArtifactError: When a file of the folder is damaged.
        """
        if self._vectors is None:
            self._vectors = {}
            for path in sorted(self.folder.glob("*.safetensors")):
                self._vectors.update(_read(path))
        found = ((text, self._vectors.get(_key(text))) for text in texts)
        return {text: vector for text, vector in found if vector is not None}

    def add(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Store vectors; a few are not worth a file and are left out.

        Raises:
            DataError: When the folder cannot be written to.
        """
        if len(vectors) < _MIN_BATCH:
            return
        from safetensors.numpy import save

        keys = [_key(text) for text in vectors]
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:32]
        data = save(
            {
                "keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, _KEY_BYTES),
                "vectors": np.stack(list(vectors.values())),
            }
        )
        try:
            with atomic_write(self.folder / f"{name}.safetensors", binary=True) as file:
                file.write(data)
        except DataError as error:
            raise DataError(
                error.problem, path=self.folder, hint="set ROUTEDK_CACHE to a folder of yours"
            ) from error


def _read(path: Path) -> dict[bytes, NDArray[np.float32]]:
    """The vectors of one file by the hash of their text."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        keys, vectors = tensors["keys"], tensors["vectors"]
        return {key.tobytes(): row for key, row in zip(keys, vectors, strict=True)}
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ArtifactError(f"{path}: damaged cache of embeddings ({error}); delete it") from error


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]
