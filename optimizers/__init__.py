"""Teleprompters: they put distilled knowledge into programs, chosen by score on validation.

Importing this package loads no dspy: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routedk.optimizers.grouping_search import GroupingSearch
    from routedk.optimizers.knowledge_injection import KnowledgeInjection
    from routedk.optimizers.metric import as_examples, matched_f1_metric

__all__ = ["GroupingSearch", "KnowledgeInjection", "as_examples", "matched_f1_metric"]

_HOMES = {
    "GroupingSearch": "grouping_search",
    "KnowledgeInjection": "knowledge_injection",
    "as_examples": "metric",
    "matched_f1_metric": "metric",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
