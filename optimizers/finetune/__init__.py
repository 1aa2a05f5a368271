"""The student's weights as one more thing that a DSPy optimizer tunes.

Importing this package loads neither torch nor dspy: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routedk.optimizers.finetune.provider import RoutedProvider, finetunable
    from routedk.optimizers.finetune.routed_finetune import FinetuneReport, RoutedFinetune
    from routedk.optimizers.finetune.settings import finetune_settings

__all__ = [
    "FinetuneReport",
    "RoutedFinetune",
    "RoutedProvider",
    "finetunable",
    "finetune_settings",
]

_HOMES = {
    "FinetuneReport": "routed_finetune",
    "RoutedFinetune": "routed_finetune",
    "RoutedProvider": "provider",
    "finetunable": "provider",
    "finetune_settings": "settings",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
