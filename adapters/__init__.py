"""The student as a language model: LoRA experts, the router that fuses them, and serving them.

Importing this package loads neither torch nor dspy: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routedk.adapters.engine import StudentEngine, engine_lm, student_lm
    from routedk.adapters.export import export_lora, export_model
    from routedk.adapters.fit import FitSettings
    from routedk.adapters.routed import ExpertSettings, RoutedStudent
    from routedk.adapters.student import Student, load_student
    from routedk.adapters.training import TrainingSettings

__all__ = [
    "ExpertSettings",
    "FitSettings",
    "RoutedStudent",
    "Student",
    "StudentEngine",
    "TrainingSettings",
    "engine_lm",
    "export_lora",
    "export_model",
    "load_student",
    "student_lm",
]

_HOMES = {
    "ExpertSettings": "routed",
    "FitSettings": "fit",
    "RoutedStudent": "routed",
    "Student": "student",
    "StudentEngine": "engine",
    "TrainingSettings": "training",
    "engine_lm": "engine",
    "export_lora": "export",
    "export_model": "export",
    "load_student": "student",
    "student_lm": "engine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
