"""DSPy programs: the prompt layout, the generator and the knowledge it is compiled with.

Importing this package loads neither dspy nor torch: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routedk.programs.aicl import AICL
    from routedk.programs.aicl_file import load_aicl
    from routedk.programs.annotation import AnnotationTeacher
    from routedk.programs.answers import ParsedAnswer, parse_answer
    from routedk.programs.batch import generate_all
    from routedk.programs.budget import Budget, BudgetError, estimate_calls
    from routedk.programs.bundle_adapter import BundleLayout
    from routedk.programs.consensus import Consensus
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.journal import AnswerJournal
    from routedk.programs.journaled_lm import JournaledLM, is_session_error
    from routedk.programs.knowledge import CompiledKnowledge
    from routedk.programs.knowledge_file import read_knowledge, write_knowledge
    from routedk.programs.likelihood import LikelihoodRanking
    from routedk.programs.lm_teacher import LMTeacher
    from routedk.programs.program_file import load_generator
    from routedk.programs.rule_distiller import RuleDistiller
    from routedk.programs.self_correct import SelfCorrect
    from routedk.programs.signatures import GenerateBundles
    from routedk.programs.thought_distiller import ThoughtDistiller
    from routedk.programs.verification import Verification

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
    "LikelihoodRanking",
    "ParsedAnswer",
    "RuleDistiller",
    "SelfCorrect",
    "ThoughtDistiller",
    "Verification",
    "estimate_calls",
    "generate_all",
    "is_session_error",
    "load_aicl",
    "load_generator",
    "parse_answer",
    "read_knowledge",
    "write_knowledge",
]

_HOMES = {
    "AICL": "aicl",
    "AnnotationTeacher": "annotation",
    "AnswerJournal": "journal",
    "Budget": "budget",
    "BudgetError": "budget",
    "BundleGenerator": "generator",
    "BundleLayout": "bundle_adapter",
    "CompiledKnowledge": "knowledge",
    "Consensus": "consensus",
    "GenerateBundles": "signatures",
    "JournaledLM": "journaled_lm",
    "LMTeacher": "lm_teacher",
    "LikelihoodRanking": "likelihood",
    "ParsedAnswer": "answers",
    "RuleDistiller": "rule_distiller",
    "SelfCorrect": "self_correct",
    "ThoughtDistiller": "thought_distiller",
    "Verification": "verification",
    "estimate_calls": "budget",
    "generate_all": "batch",
    "is_session_error": "journaled_lm",
    "load_aicl": "aicl_file",
    "load_generator": "program_file",
    "parse_answer": "answers",
    "read_knowledge": "knowledge_file",
    "write_knowledge": "knowledge_file",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
