"""The student as a language model: LoRA experts, the router that fuses them, and serving them.

Importing this package loads neither torch nor dspy: a name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from routedk.lazy import loaded_on_use

if TYPE_CHECKING:
    from routedk.adapters.exporting.export import export_lora, export_model
    from routedk.adapters.exporting.prototype_export import PrototypeSettings, export_prototypes
    from routedk.adapters.exporting.prototypes import Prototypes
    from routedk.adapters.routing.routed import ExpertSettings, RoutedStudent
    from routedk.adapters.serving.engine import StudentEngine, engine_lm, student_lm
    from routedk.adapters.serving.judges import StudentRanker, StudentVerifier
    from routedk.adapters.serving.scoring import Continuation, Scorer, scorer_of
    from routedk.adapters.student import Student, load_student
    from routedk.adapters.training.fit import FitSettings
    from routedk.adapters.training.router_training import RouterTraining
    from routedk.adapters.training.stages import TrainingSettings

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
    "Continuation": "serving.scoring",
    "ExpertSettings": "routing.routed",
    "FitSettings": "training.fit",
    "PrototypeSettings": "exporting.prototype_export",
    "Prototypes": "exporting.prototypes",
    "RoutedStudent": "routing.routed",
    "RouterTraining": "training.router_training",
    "Scorer": "serving.scoring",
    "Student": "student",
    "StudentEngine": "serving.engine",
    "StudentRanker": "serving.judges",
    "StudentVerifier": "serving.judges",
    "TrainingSettings": "training.stages",
    "engine_lm": "serving.engine",
    "export_lora": "exporting.export",
    "export_model": "exporting.export",
    "export_prototypes": "exporting.prototype_export",
    "load_student": "student",
    "scorer_of": "serving.scoring",
    "student_lm": "serving.engine",
}

__getattr__ = loaded_on_use(__name__, _HOMES)
