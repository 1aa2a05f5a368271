"""Metrics, protocols, baselines and evaluation of bundles.

Importing this package is light; encoders and solvers are imported where they are used.
"""

from routedk.eval.baselines import Baseline
from routedk.eval.bootstrap import Interval
from routedk.eval.evaluate import EvaluationResult, evaluate, predict_baseline
from routedk.eval.matched import matched_f1
from routedk.eval.predictions import (
    make_answer,
    read_predictions,
    write_predictions,
)
from routedk.eval.protocols import METRICS, PROTOCOLS
from routedk.eval.report import Report, System
from routedk.eval.suite import BASELINES, BaselineData, evaluate_baselines, make_baseline
from routedk.similarity.candidates import dendrogram_candidates
from routedk.similarity.encoders import MiniLMEncoder, TfidfEncoder, TitleEncoder, default_encoder

__all__ = [
    "BASELINES",
    "METRICS",
    "PROTOCOLS",
    "Baseline",
    "BaselineData",
    "EvaluationResult",
    "Interval",
    "MiniLMEncoder",
    "Report",
    "System",
    "TfidfEncoder",
    "TitleEncoder",
    "default_encoder",
    "dendrogram_candidates",
    "evaluate",
    "evaluate_baselines",
    "make_answer",
    "make_baseline",
    "matched_f1",
    "predict_baseline",
    "read_predictions",
    "write_predictions",
]
