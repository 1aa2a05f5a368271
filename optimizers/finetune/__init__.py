"""The student's weights as one more thing that a DSPy optimizer tunes.

Importing this package loads neither torch nor dspy: a name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from routedk.lazy import loaded_on_use

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

__getattr__ = loaded_on_use(__name__, _HOMES)
