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
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.journal.budget import Budget, BudgetError, estimate_calls
    from routedk.programs.journal.journal import AnswerJournal
    from routedk.programs.journal.journaled_lm import JournaledLM, is_session_error
    from routedk.programs.knowledge.compiled import CompiledKnowledge
    from routedk.programs.program_file import load_program
    from routedk.programs.prompting.answers import ParsedAnswer, read_answer
    from routedk.programs.prompting.bundle_adapter import BundleLayout
    from routedk.programs.prompting.signatures import GenerateBundles
    from routedk.programs.teachers.annotation import AnnotationTeacher
    from routedk.programs.teachers.lm_teacher import LMTeacher
    from routedk.programs.teachers.rule_distiller import RuleDistiller
    from routedk.programs.teachers.thought_distiller import ThoughtDistiller

__all__ = [
    "AICL",
    "AnnotationTeacher",
    "AnswerJournal",
    "Budget",
    "BudgetError",
    "BundleGenerator",
    "BundleLayout",
    "CompiledKnowledge",
    "Consensus",
    "GenerateBundles",
    "JournaledLM",
    "LMTeacher",
    "ParsedAnswer",
    "RuleDistiller",
    "ThoughtDistiller",
    "central_prediction",
    "estimate_calls",
    "generate_all",
    "is_session_error",
    "load_aicl",
    "load_program",
    "read_answer",
    "read_knowledge",
    "write_knowledge",
]

_HOMES = {
    "AICL": "aicl.program",
    "AnnotationTeacher": "teachers.annotation",
    "AnswerJournal": "journal.journal",
    "Budget": "journal.budget",
    "BudgetError": "journal.budget",
    "BundleGenerator": "generator",
    "BundleLayout": "prompting.bundle_adapter",
    "CompiledKnowledge": "knowledge.compiled",
    "Consensus": "consensus",
    "GenerateBundles": "prompting.signatures",
    "JournaledLM": "journal.journaled_lm",
    "LMTeacher": "teachers.lm_teacher",
    "ParsedAnswer": "prompting.answers",
    "RuleDistiller": "teachers.rule_distiller",
    "ThoughtDistiller": "teachers.thought_distiller",
    "central_prediction": "consensus",
    "estimate_calls": "journal.budget",
    "generate_all": "batch",
    "is_session_error": "journal.journaled_lm",
    "load_aicl": "aicl.file",
    "load_program": "program_file",
    "read_answer": "prompting.answers",
    "read_knowledge": "routedk.data.knowledge_file",
    "write_knowledge": "routedk.data.knowledge_file",
}

__getattr__ = loaded_on_use(__name__, _HOMES)
