"""RouteDK: shopping sessions to bundles with a small language model."""

from routedk.errors import (
    AnswerError,
    ArtifactError,
    DataError,
    MissingExtraError,
    RouteDKError,
    SettingError,
    StudentError,
)
from routedk.types import (
    Bundle,
    Item,
    KnowledgeBase,
    Pattern,
    Provenance,
    Rule,
    Session,
    Thought,
)

__version__ = "0.1.0"

__all__ = [
    "AnswerError",
    "ArtifactError",
    "Bundle",
    "DataError",
    "Item",
    "KnowledgeBase",
    "MissingExtraError",
    "Pattern",
    "Provenance",
    "RouteDKError",
    "Rule",
    "Session",
    "SettingError",
    "StudentError",
    "Thought",
    "__version__",
]
