"""The LM teacher, with a scripted language model."""

from collections.abc import Callable
from typing import Any

import pytest
from dspy.lm15 import InvalidRequestError

from routedk.errors import RouteDKError
from routedk.programs.journal.budget import BudgetError
from routedk.programs.prompting.layout import Message
from routedk.programs.teachers import lm_teacher
from routedk.programs.teachers.asker import Asker
from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.lm_teacher import lm_knowledge
from routedk.types import KnowledgeBase, Session
from tests.scripted import scripted_lm

Make = Callable[..., Session]
Script = Callable[[list[Message]], str]
RULES = ["Kettles belong with cups.", "Cables belong with hubs."]


def asked(messages: list[Message]) -> str:
    """Which question it is: by what the user message ends with."""
    ending = messages[-1]["content"].rsplit("\n\n", 1)[-1]
    for step in ("Causes", "At most three rules", "One line such as"):
        if ending.startswith(step):
            return step
    return "bundle"


def script(messages: list[Message]) -> str:
    seen = messages[-1]["content"]
    return {
        "bundle": "1 3 | guess",
        "Causes": f"cause of {'tea' if 'kettle' in seen else 'desk'}",
        "At most three rules": RULES[0] if "tea" in seen else RULES[1],
        "One line such as": "1 x; 2 x; 3 y",
    }[asked(messages)]


@pytest.fixture
def sessions(make: Make) -> list[Session]:
    return [
        make("s1", ["kettle", "cup", "sock"], [((1, 2), "tea")]),
        make("s2", ["hub", "cable", "lamp"], [((1, 2), "desk")]),
        make("s3", ["big kettle", "cup", "sock"], [((1, 2), "tea")]),
    ]


class Teacher:
    """An LM teacher, and the messages that it is asked."""

    def __init__(self, script: Script = script, **settings: Any) -> None:
        lm, engine = scripted_lm(script)
        self.config = DistillConfig(**settings)
        self.asker = Asker(lm, threads=self.config.threads)
        self.requests = engine.requests

    def distill(self, sessions: list[Session]) -> KnowledgeBase:
        return lm_knowledge(sessions, self.config, self.asker)


def test_three_formats_with_provenance(
    sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_teacher, "price_of", lambda lm, read, written: 0.5)
    made = Teacher()
    knowledge = made.distill(sessions)
    assert [rule.text for rule in knowledge.rules] == RULES
    first = knowledge.rules[0].provenance
    assert (first.teacher, first.sessions) == ("local/scripted", ("s1", "s3"))
    # Three calls of two tokens for each of the two sessions.
    assert (first.tokens, first.cost) == (12, 1.0)
    assert len(first.prompt_hash) == 16
    assert [(t.session_id, t.text) for t in knowledge.thoughts] == [
        (name, "1 x; 2 x; 3 y") for name in ("s1", "s2", "s3")
    ]
    assert knowledge.thoughts[0].provenance.tokens == 2
    assert knowledge.thoughts[0].provenance.prompt_hash != first.prompt_hash
    assert (made.asker.quarantined, made.asker.stopped) == ([], "")


def test_rules_of_one_session_share_its_cost(
    sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(messages: list[Message]) -> str:
        return "\n".join(RULES) if asked(messages) == "At most three rules" else script(messages)

    monkeypatch.setattr(lm_teacher, "price_of", lambda lm, read, written: 0.5)
    made = Teacher(two, formats=("rule",))
    sources = [rule.provenance for rule in made.distill(sessions[:1]).rules]
    assert [(source.tokens, source.cost) for source in sources] == [(3, 0.25)] * 2


def test_an_unknown_price_stays_unknown(sessions: list[Session]) -> None:
    made = Teacher(formats=("rule",))
    assert {rule.provenance.cost for rule in made.distill(sessions).rules} == {None}


def test_formats_and_links(sessions: list[Session]) -> None:
    def seen(**settings: Any) -> list[str]:
        made = Teacher(**settings)
        made.distill(sessions)
        return ["\n".join(m["content"] for m in request) for request in made.requests]

    thoughts = [text for text in seen() if "One line such as" in text]
    assert thoughts
    assert all(RULES[0] in text for text in thoughts)
    alone = [text for text in seen(rules_feed_thoughts=False) if "One line such as" in text]
    assert alone
    assert not any(RULES[0] in text for text in alone)
    assert not any("Causes" in text for text in seen(formats=("pattern", "thought")))
    made = Teacher(formats=("rule",))
    knowledge = made.distill(sessions)
    assert (knowledge.patterns, knowledge.thoughts) == ((), ())
    assert knowledge.rules
    assert len(made.requests) == 9


def test_patterns_are_evidence_for_rules(make: Make) -> None:
    paths = [("Tea",), ("Mugs",), ()]
    sessions = [
        make(f"s{n}", ["kettle", "cup", "sock"], [((1, 2), "tea")], paths) for n in range(2)
    ]
    for feeds in (True, False):
        made = Teacher(formats=("rule",), patterns_feed_rules=feeds)
        assert made.distill(sessions).patterns == ()
        assert ("Mugs" in str(made.requests[0])) is feeds


def test_wrong_thoughts_are_dropped_and_told(sessions: list[Session]) -> None:
    def wrong(messages: list[Message]) -> str:
        if asked(messages) == "One line such as" and "hub" in messages[-1]["content"]:
            return "1 x; 2 y; 3 z"
        return script(messages)

    made = Teacher(wrong, formats=("thought",))
    assert [t.session_id for t in made.distill(sessions).thoughts] == ["s1", "s3"]
    (told,) = made.asker.quarantined
    assert (told["session_id"], told["step"]) == ("s2", "thought")
    assert "1 2 are a bundle" in told["error"]


def test_where_every_thought_is_wrong_the_rules_remain(sessions: list[Session]) -> None:
    def wrong(messages: list[Message]) -> str:
        return "1 x" if asked(messages) == "One line such as" else script(messages)

    knowledge = Teacher(wrong).distill(sessions)
    assert (len(knowledge.rules), knowledge.thoughts) == (2, ())


def refusing(word: str) -> Script:
    def answer(messages: list[Message]) -> str:
        if word in messages[-1]["content"]:
            raise InvalidRequestError("too long a prompt")
        return script(messages)

    return answer


def test_one_bad_session_is_quarantined_and_named(
    sessions: list[Session], caplog: pytest.LogCaptureFixture
) -> None:
    made = Teacher(refusing("hub"))
    knowledge = made.distill(sessions)
    assert [t.session_id for t in knowledge.thoughts] == ["s1", "s3"]
    told = made.asker.quarantined
    assert [(q["session_id"], q["step"]) for q in told] == [("s2", "rule"), ("s2", "thought")]
    assert "too long a prompt" in told[0]["error"]
    assert "session s2 is left out of thoughts: " in caplog.text


def test_where_every_session_fails_the_run_fails(sessions: list[Session]) -> None:
    made = Teacher(refusing(""))
    with pytest.raises(RouteDKError, match=r"rules: all 3 sessions failed.*'s1'.*too long a prom"):
        made.distill(sessions)


def test_a_used_up_budget_stops_with_what_was_made(
    sessions: list[Session], caplog: pytest.LogCaptureFixture
) -> None:
    def broke(messages: list[Message]) -> str:
        if "hub" in messages[-1]["content"]:
            raise BudgetError("the budget is 9 tokens")
        return script(messages)

    made = Teacher(broke, formats=("thought",), threads=1)
    assert [t.session_id for t in made.distill(sessions).thoughts] == ["s1", "s3"]
    assert made.asker.stopped == "the budget is 9 tokens"
    assert made.asker.quarantined == []
    assert "not all calls for thoughts were made: the budget is 9 tokens" in caplog.text
