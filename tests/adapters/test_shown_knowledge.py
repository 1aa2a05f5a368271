"""Which thoughts the experts learn, and which knowledge they see."""

from dataclasses import replace

import pytest

from routedk.adapters.experts.routing_file import EXPERTS
from routedk.adapters.student import Student
from routedk.adapters.train import choose_lessons, shown_knowledge
from routedk.adapters.training.examples import training_rows
from routedk.programs.prompting.item_intents import compose_bundles, read_item_intents
from routedk.programs.teachers.annotation_intents import GoldIntents
from routedk.types import Bundle, KnowledgeBase, Provenance, Session, Thought


def thought(session: Session, text: str, teacher: str = "openai/some") -> Thought:
    return Thought(session_id=session.id, text=text, provenance=Provenance(teacher=teacher))


@pytest.mark.parametrize("teacher", ["openai/some", "annotation"])
def test_a_thought_of_a_language_model_is_learned(teacher: str, sessions: list[Session]) -> None:
    asked = "1 as asked; 2 as asked; 3 none"
    intents = GoldIntents(sessions)
    wanted = {session.id: intents.thought(session) for session in sessions}
    assert {b.items for b in sessions[1].bundles or ()} == {
        b.items for b in compose_bundles(read_item_intents(asked, 3), sessions[1])
    }
    if teacher != "annotation":
        wanted[sessions[1].id] = asked
    known = KnowledgeBase(thoughts=(thought(sessions[1], asked, teacher),))
    lessons = choose_lessons(sessions, known, "item-intents")
    assert {session.id: text for session, text in lessons} == wanted
    shown = shown_knowledge(lessons, known, "item-intents")
    assert shown["thought"].sessions == (sessions[1],)
    assert shown["thought"].thoughts == {sessions[1].id: wanted[sessions[1].id]}
    assert not any(shown[name].thoughts for name in ("base", "rule"))


def test_each_label_is_learned_with_a_thought_of_its_own(sessions: list[Session]) -> None:
    gold = sessions[1]
    first, *_, last = (item.id for item in gold.items)
    stated = replace(gold, bundles=(Bundle((first, last), "theirs"),))
    theirs = thought(gold, "1 theirs; 3 theirs")
    [(_, of_gold), (_, of_teacher)] = choose_lessons(
        [gold, stated], KnowledgeBase(thoughts=(theirs,)), "item-intents"
    )
    assert of_teacher == theirs.text
    meant = compose_bundles(read_item_intents(of_gold, len(gold.items)), gold)
    assert {bundle.items for bundle in meant} == set(gold.gold)


def test_where_bundles_are_named_all_labelled_sessions_are_neighbours(
    sessions: list[Session], knowledge: KnowledgeBase
) -> None:
    lessons = choose_lessons(sessions[:4], knowledge, "bundle-intent")
    shown = shown_knowledge(lessons, knowledge, "bundle-intent")
    assert shown["thought"].sessions == tuple(sessions[:4])
    assert shown["rule"].rules == tuple(rule.text for rule in knowledge.rules)
    assert not any(shown[name].thoughts for name in EXPERTS)


def test_the_mixed_expert_has_the_rows_of_rule_and_thought(
    loaded: Student, sessions: list[Session], knowledge: KnowledgeBase
) -> None:
    lessons = choose_lessons(sessions, knowledge, "item-intents")
    shown = shown_knowledge(lessons, knowledge, "item-intents")
    rows = {
        name: training_rows(loaded.tokenizer, lessons, known, name, "item-intents")
        for name, known in shown.items()
    }
    assert rows["rule"] != rows["thought"]
    assert rows["mixed"] == [*rows["rule"], *rows["thought"]]
