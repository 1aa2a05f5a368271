"""DSPy programs: the prompt layout, the generator and the knowledge it is compiled with.

Importing this package loads neither dspy nor torch: a name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from routedk.lazy import loaded_on_use

if TYPE_CHECKING:
    from routedk.data.knowledge_file import read_knowledge, write_knowledge
    from routedk.programs.aicl.file import load_aicl
    from routedk.programs.aicl.program import AICL
    from routedk.programs.batch import generate_all
    from routedk.programs.consensus import Consensus, central_prediction
    from routedk.programs.distill import distill_artifact, plan_distill
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.journal.budget import BudgetError
    from routedk.programs.knowledge.compiled import CompiledKnowledge
    from routedk.programs.program_file import load_program
    from routedk.programs.prompting.answers import ParsedAnswer, read_answer
    from routedk.programs.prompting.bundle_adapter import BundleLayout
    from routedk.programs.prompting.signatures import GenerateBundles
    from routedk.programs.sampling.difficulty import score_sessions
    from routedk.programs.sampling.sampling import sample_sessions
    from routedk.programs.teachers.accumulate import accumulate, of_domain
    from routedk.programs.teachers.config import DistillConfig

__all__ = [
    "AICL",
    "BudgetError",
    "BundleGenerator",
    "BundleLayout",
    "CompiledKnowledge",
    "Consensus",
    "DistillConfig",
    "GenerateBundles",
    "ParsedAnswer",
    "accumulate",
    "central_prediction",
    "distill_artifact",
    "generate_all",
    "load_aicl",
    "load_program",
    "of_domain",
    "plan_distill",
    "read_answer",
    "read_knowledge",
    "sample_sessions",
    "score_sessions",
    "write_knowledge",
]

_HOMES = {
    "AICL": "aicl.program",
    "BudgetError": "journal.budget",
    "BundleGenerator": "generator",
    "BundleLayout": "prompting.bundle_adapter",
    "CompiledKnowledge": "knowledge.compiled",
    "Consensus": "consensus",
    "DistillConfig": "teachers.config",
    "GenerateBundles": "prompting.signatures",
    "ParsedAnswer": "prompting.answers",
    "accumulate": "teachers.accumulate",
    "central_prediction": "consensus",
    "distill_artifact": "distill",
    "generate_all": "batch",
    "load_aicl": "aicl.file",
    "load_program": "program_file",
    "of_domain": "teachers.accumulate",
    "plan_distill": "distill",
    "read_answer": "prompting.answers",
    "read_knowledge": "routedk.data.knowledge_file",
    "sample_sessions": "sampling.sampling",
    "score_sessions": "sampling.difficulty",
    "write_knowledge": "routedk.data.knowledge_file",
}

__getattr__ = loaded_on_use(__name__, _HOMES)
