"""The student as a language model: LoRA experts, the router that fuses them, and serving them.

Importing this package loads neither torch nor dspy: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routedk.adapters.engine import StudentEngine, engine_lm, student_lm
    from routedk.adapters.export import export_lora, export_model
    from routedk.adapters.fit import FitSettings
    from routedk.adapters.judges import StudentRanker, StudentVerifier
    from routedk.adapters.prototype_export import PrototypeSettings, export_prototypes
    from routedk.adapters.prototypes import Prototypes
    from routedk.adapters.routed import ExpertSettings, RoutedStudent
    from routedk.adapters.router_training import RouterTraining
    from routedk.adapters.scoring import Continuation, Scorer, scorer_of
    from routedk.adapters.student import Student, load_student
    from routedk.adapters.training import TrainingSettings

__all__ = [
    "Continuation",
    "ExpertSettings",
    "FitSettings",
    "PrototypeSettings",
    "Prototypes",
    "RoutedStudent",
    "RouterTraining",
    "Scorer",
    "Student",
    "StudentEngine",
    "StudentRanker",
    "StudentVerifier",
    "TrainingSettings",
    "engine_lm",
    "export_lora",
    "export_model",
    "export_prototypes",
    "load_student",
    "scorer_of",
    "student_lm",
]

_HOMES = {
    "Continuation": "scoring",
    "ExpertSettings": "routed",
    "FitSettings": "fit",
    "PrototypeSettings": "prototype_export",
    "Prototypes": "prototypes",
    "RoutedStudent": "routed",
    "RouterTraining": "router_training",
    "Scorer": "scoring",
    "Student": "student",
    "StudentEngine": "engine",
    "StudentRanker": "judges",
    "StudentVerifier": "judges",
    "TrainingSettings": "training",
    "engine_lm": "engine",
    "export_lora": "export",
    "export_model": "export",
    "export_prototypes": "prototype_export",
    "load_student": "student",
    "scorer_of": "scoring",
    "student_lm": "engine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
