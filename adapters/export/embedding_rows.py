"""Rows of a student's input embeddings, read from its files without loading the student."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from routedk.errors import ArtifactError

_PROBED = 16


class EmbeddingRows:
    """The embedding matrix of a model folder; a row is read from disk when it is asked for.

    Args:
        folder: With ``model.safetensors``, or its parts and their index.
        tensor: Name of the matrix in there.

    Raises:
        ArtifactError: There is no such matrix.
    """

    def __init__(self, folder: Path, tensor: str) -> None:
        path = folder / "model.safetensors"
        index = folder / "model.safetensors.index.json"
        try:
            if not path.exists() and index.exists():
                path = folder / json.loads(index.read_text(encoding="utf-8"))["weight_map"][tensor]
            self._file = cast(Any, safe_open(path, framework="pt"))
            self._rows = self._file.get_slice(tensor)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ArtifactError(
                f"{folder}: the student's embeddings, {tensor!r}, are not found: {error}"
            ) from None
        self.shape: tuple[int, int] = tuple(self._rows.get_shape())

    def of(self, ids: Sequence[int]) -> Tensor:
        """These tokens' embeddings; *shape* (tokens, hidden)."""
        known = {token: self._row(token) for token in set(ids)}
        return torch.stack([known[token] for token in ids])

    def probe(self) -> str:
        """Sixteen hex digits over some rows, to tell another student's matrix."""
        step = max(1, self.shape[0] // _PROBED)
        digest = hashlib.sha256(repr(self.shape).encode())
        for token in range(0, self.shape[0], step):
            digest.update(self._row(token).numpy().tobytes())
        return digest.hexdigest()[:16]

    def _row(self, token: int) -> Tensor:
        row: Tensor = self._rows[token : token + 1][0]
        return row.float()
