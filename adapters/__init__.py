"""The student as a language model: LoRA experts, the router that fuses them, and serving them.

Importing this package loads neither torch nor dspy: a name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from routedk.lazy import loaded_on_use

if TYPE_CHECKING:
    from routedk.adapters.engine.engine import StudentEngine, engine_lm, student_lm
    from routedk.adapters.engine.scoring import Continuation, Scorer, scorer_of
    from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
    from routedk.adapters.export.export import export_lora, export_model
    from routedk.adapters.export.prototype_export import PrototypeSettings, export_prototypes
    from routedk.adapters.export.prototypes import Prototypes
    from routedk.adapters.generate import stream_answers
    from routedk.adapters.lm import resolve_lm
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
    "TrainingSettings",
    "engine_lm",
    "export_lora",
    "export_model",
    "export_prototypes",
    "load_student",
    "resolve_lm",
    "scorer_of",
    "stream_answers",
    "student_lm",
]

_HOMES = {
    "Continuation": "engine.scoring",
    "ExpertSettings": "experts.routed",
    "FitSettings": "training.fit",
    "PrototypeSettings": "export.prototype_export",
    "Prototypes": "export.prototypes",
    "RoutedStudent": "experts.routed",
    "RouterTraining": "training.router_training",
    "Scorer": "engine.scoring",
    "Student": "student",
    "StudentEngine": "engine.engine",
    "TrainingSettings": "training.stages",
    "engine_lm": "engine.engine",
    "export_lora": "export.export",
    "export_model": "export.export",
    "export_prototypes": "export.prototype_export",
    "load_student": "student",
    "resolve_lm": "lm",
    "stream_answers": "generate",
    "scorer_of": "engine.scoring",
    "student_lm": "engine.engine",
}

__getattr__ = loaded_on_use(__name__, _HOMES)
