"""Sampling of training sessions, and teleprompters: knowledge into prompts, and into weights.

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
    from routedk.programs.sampling.difficulty import difficulty_scores
    from routedk.programs.sampling.sampling import SamplingStrategy, make_strategy, sample_sessions

__all__ = [
    "GroupingSearch",
    "KnowledgeInjection",
    "RoutedFinetune",
    "SamplingStrategy",
    "as_examples",
    "difficulty_scores",
    "feedback_metric",
    "make_strategy",
    "matched_f1_metric",
    "sample_sessions",
]

_HOMES = {
    "GroupingSearch": "grouping_search",
    "KnowledgeInjection": "knowledge_injection",
    "RoutedFinetune": "finetune.routed_finetune",
    "SamplingStrategy": "routedk.programs.sampling.sampling",
    "as_examples": "metric",
    "difficulty_scores": "routedk.programs.sampling.difficulty",
    "feedback_metric": "feedback",
    "make_strategy": "routedk.programs.sampling.sampling",
    "matched_f1_metric": "metric",
    "sample_sessions": "routedk.programs.sampling.sampling",
}

__getattr__ = loaded_on_use(__name__, _HOMES)
