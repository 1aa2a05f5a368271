from .answering import stream_answers as stream_answers
from .engine.engine import StudentEngine as StudentEngine
from .engine.engine import engine_lm as engine_lm
from .engine.engine import student_lm as student_lm
from .experts.routed import RoutedStudent as RoutedStudent
from .experts.routing_file import ExpertSettings as ExpertSettings
from .export.export import ExportConfig as ExportConfig
from .export.export import export_experts as export_experts
from .lm import resolve_lm as resolve_lm
from .student import Student as Student
from .student import load_student as load_student

__all__: list[str]
