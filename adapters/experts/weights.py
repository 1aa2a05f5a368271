"""Reads the weights of experts and routers from their files."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from torch import Tensor, nn

from routedk.adapters.experts.routing_file import ROUTER_FILE
from routedk.errors import ArtifactError, DataError
from routedk.files import read_tensors


def read_expert(model: PeftModel, adapter: str, folder: Path) -> None:
    """Overwrite an adapter of a model with one on disk, a plain PEFT folder of the same shape.

    Raises:
        ArtifactError: It is missing, damaged, of another shape, or has weights that are not finite.
    """
    path = folder / "adapter_model.safetensors"
    outcome = _load(path, partial(set_peft_model_state_dict, model, adapter_name=adapter))
    missing = [key for key in outcome.missing_keys if f".{adapter}." in key]
    if missing or outcome.unexpected_keys:
        raise ArtifactError(
            f"{path}: {len(missing)} tensors missing, {len(outcome.unexpected_keys)} unexpected"
        )


def read_router(router: nn.Module, folder: Path) -> None:
    """Overwrite a router with ``router.safetensors`` of a folder.

    Raises:
        ArtifactError: It is missing, damaged, of another kind, or has weights that are not finite.
    """
    _load(folder / ROUTER_FILE, router.load_state_dict)


def _load(path: Path, take: Callable[[dict[str, Tensor]], Any]) -> Any:
    """Pass a file's tensors, which must all be finite, to ``take``."""
    try:
        tensors = read_tensors(path, "pt")
        outcome = take(tensors)
    except DataError as error:
        raise ArtifactError(str(error)) from error
    except RuntimeError as error:  # of other shapes
        reason = str(error).partition("\n")[2] or error
        raise ArtifactError(f"{path}: missing or damaged: {reason}") from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ArtifactError(
            f"{path.parent}: {path.name} has weights that are not finite, since training diverged: "
            "train again with a lower learning rate"
        )
    return outcome


def expert_hashes(folders: Mapping[str, Path]) -> dict[str, str]:
    """A hash of the weights of each expert."""
    try:
        return {
            name: hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
            for name, folder in folders.items()
        }
    except OSError as error:
        raise ArtifactError(f"the experts are missing or damaged: {error}") from None
