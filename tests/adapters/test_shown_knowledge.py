"""Which thoughts the experts learn."""

from pathlib import Path

import pytest

from routedk.adapters.experts.routing_file import EXPERTS
from routedk.adapters.train import shown_knowledge
from routedk.programs.distill import DistillConfig, distill
from routedk.types import KnowledgeBase, Provenance, Session, Thought


@pytest.mark.parametrize("teacher", ["openai/some", "annotation"])
def test_all_experts_learn_the_thoughts_of_a_language_model(
    teacher: str, sessions: list[Session], tmp_path: Path
) -> None:
    asked = Thought(
        session_id=sessions[1].id, text="1: as asked", provenance=Provenance(teacher=teacher)
    )
    annotation = distill(sessions, DistillConfig(formats=("thought",)), store=tmp_path)
    wanted = {thought.session_id: thought.text for thought in annotation.thoughts}
    if teacher != "annotation":
        wanted[asked.session_id] = asked.text
    known = KnowledgeBase(thoughts=(asked,))
    shown = shown_knowledge(sessions, known, tmp_path, "item-intents")
    assert [shown[name].thoughts for name in EXPERTS] == [wanted] * 3
    assert shown["thought"].sessions == (sessions[1],)


def test_where_bundles_are_named_all_labelled_sessions_are_neighbours(
    sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    shown = shown_knowledge(sessions[:4], knowledge, tmp_path, "bundle-intent")
    assert shown["thought"].sessions == tuple(sessions[:4])
    assert shown["rule"].rules == tuple(rule.text for rule in knowledge.rules)
    assert not any(shown[name].thoughts for name in EXPERTS)
    assert not list(tmp_path.iterdir()), "no annotation teacher is asked"
