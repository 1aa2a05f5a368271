"""Knowledge: what the annotation teacher makes of some training sessions.

All three formats are made at once, for one look at the sessions serves them all, and none depends
on which others are wanted: trials that differ in formats share the part, and each takes its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from routedk.data.knowledge_file import read_knowledge, write_knowledge
from routedk.optimizers.search.stages.common import Ledger, sessions_hash
from routedk.programs.teachers.annotation import annotation_knowledge
from routedk.programs.teachers.config import DistillConfig
from routedk.types import KnowledgeBase, Session

_KNOWLEDGE = "knowledge.jsonl"


def distilled(ledger: Ledger, sessions: Sequence[Session]) -> KnowledgeBase:
    """What the annotation teacher makes of some sessions, in all formats.

    Args:
        ledger: Of the trial.
        sessions: Annotated training sessions.
    """

    def make(out: Path, work: Path) -> None:
        write_knowledge(annotation_knowledge(sessions, DistillConfig()), out / _KNOWLEDGE)

    part = ledger.obtain(
        "knowledge", make, inputs={"sessions": sessions_hash(sessions)}, settings={}
    )
    return read_knowledge(part.folder / _KNOWLEDGE)


def in_formats(knowledge: KnowledgeBase, formats: Sequence[str]) -> KnowledgeBase:
    """The pieces of these formats alone."""
    return replace(
        knowledge,
        patterns=knowledge.patterns if "pattern" in formats else (),
        rules=knowledge.rules if "rule" in formats else (),
        thoughts=knowledge.thoughts if "thought" in formats else (),
    )
