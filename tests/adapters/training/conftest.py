"""Rows to train on."""

import pytest

from routedk.adapters.student import Student
from routedk.adapters.training.examples import TrainingRow, training_rows
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session


@pytest.fixture
def rows(loaded: Student, sessions: list[Session], knowledge: KnowledgeBase) -> list[TrainingRow]:
    """Four rows of each expert."""
    thoughts = {thought.session_id: thought.text for thought in knowledge.thoughts}
    shown = CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        sessions=tuple(sessions),
        thoughts=thoughts,
    )
    lessons = [(session, thoughts[session.id]) for session in sessions[:4]]
    return [
        row
        for name in ("base", "rule", "thought")
        for row in training_rows(loaded.tokenizer, lessons, shown, name, "item-intents")
    ]
