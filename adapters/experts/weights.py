"""Reads the weights of experts and routers from their files."""

from pathlib import Path

from peft import PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from routedk.adapters.experts.routing_file import ROUTER_FILE
from routedk.errors import ArtifactError


def read_expert(model: PeftModel, adapter: str, folder: Path) -> None:
    """Overwrite an adapter of a model with one on disk, a plain PEFT folder of the same shape.

    Raises:
        ArtifactError: It is missing, damaged, or of another shape.
    """
    path = folder / "adapter_model.safetensors"
    try:
        outcome = set_peft_model_state_dict(model, load_file(path), adapter_name=adapter)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    missing = [key for key in outcome.missing_keys if f".{adapter}." in key]
    if missing or outcome.unexpected_keys:
        raise ArtifactError(
            f"{path}: {len(missing)} tensors missing, {len(outcome.unexpected_keys)} unexpected"
        )


def read_router(router: nn.Module, folder: Path) -> None:
    """Overwrite a router with ``router.safetensors`` of a folder.

    Raises:
        ArtifactError: It is missing, damaged, or of another kind.
    """
    path = folder / ROUTER_FILE
    try:
        router.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    """The error for a file that a library cannot read."""
    return ArtifactError(f"{path}: missing or damaged: {' '.join(str(error).split())[:300]}")
