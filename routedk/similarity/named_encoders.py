"""Title encoders by name: the packaged MiniLM, or any model of sentence-transformers."""

import re
import threading
from pathlib import Path

from routedk.errors import SettingError
from routedk.similarity.encoders import MiniLMEncoder, default_encoder

DEFAULT = "minilm"
_LOCK = threading.Lock()
_SHARED: dict[str, MiniLMEncoder] = {}
# With one of these sentence-transformers takes a folder for a model.
_MODEL_FILES = ("modules.json", "config.json")


def named_encoder(name: str = DEFAULT) -> MiniLMEncoder:
    """The one encoder of this name that a process shares; its model is loaded when first used.

    Args:
        name: ``minilm`` for the packaged model, else a folder, or the name of a
            sentence-transformers model on the Hugging Face hub, whose vectors are kept in memory
            alone.

    Raises:
        SettingError: There can be no such model, see `check_encoder`.
        MissingExtraError: The package with the default model is not installed.
    """
    check_encoder(name)
    if name == DEFAULT:
        return default_encoder()
    with _LOCK:
        return _SHARED.setdefault(name, MiniLMEncoder(name))


def check_encoder(name: str) -> None:
    """Refuse a name that no model can have, or none that is here while the hub is off.

    Nothing is loaded or fetched. Whether the hub has a model is only seen when it is used.

    Args:
        name: As for `named_encoder`.

    Raises:
        SettingError: The folder holds no model, the name is none of the hub's, or the hub is
            off and its cache does not have the model.
        MissingExtraError: The package with the default model is not installed.
    """
    if name == DEFAULT:
        default_encoder()
    elif name and Path(name).is_dir():
        if not any((Path(name) / file).is_file() for file in _MODEL_FILES):
            raise SettingError(
                f"{name!r} is no sentence-transformers model: the folder has no "
                f"{' and no '.join(_MODEL_FILES)}"
            )
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise SettingError(f"{name!r} is no sentence-transformers model: there is no such folder")
    elif not _may_be_had(name):
        raise SettingError(
            f"{name!r} is no sentence-transformers model that is here: there is no such folder, "
            "it is not in the Hugging Face cache, and HF_HUB_OFFLINE keeps it from being fetched"
        )


def _may_be_had(name: str) -> bool:
    """Whether the hub may be asked, or its cache has the model."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HFValidationError

    full = name if "/" in name else f"sentence-transformers/{name}"
    try:
        cached = [try_to_load_from_cache(full, file) for file in _MODEL_FILES]
    except HFValidationError:
        return False
    return not HF_HUB_OFFLINE or any(isinstance(path, str) for path in cached)
