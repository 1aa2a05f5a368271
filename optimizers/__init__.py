"""Teleprompters: knowledge into prompts, and into weights.

Importing this package loads no dspy: a name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from routedk.lazy import loaded_on_use

if TYPE_CHECKING:
    from routedk.optimizers.feedback import feedback_metric
    from routedk.optimizers.finetune.routed_finetune import RoutedFinetune
    from routedk.optimizers.grouping_search import GroupingSearch
    from routedk.optimizers.knowledge_injection import KnowledgeInjection
    from routedk.optimizers.metric import as_examples, matched_f1_metric

__all__ = [
    "GroupingSearch",
    "KnowledgeInjection",
    "RoutedFinetune",
    "as_examples",
    "feedback_metric",
    "matched_f1_metric",
]

_HOMES = {
    "GroupingSearch": "grouping_search",
    "KnowledgeInjection": "knowledge_injection",
    "RoutedFinetune": "finetune.routed_finetune",
    "as_examples": "metric",
    "feedback_metric": "feedback",
    "matched_f1_metric": "metric",
}

__getattr__ = loaded_on_use(__name__, _HOMES)
