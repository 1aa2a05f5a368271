from collections.abc import Callable
from pathlib import Path

import pytest
from dspy.lm15 import InvalidRequestError
from dspy.utils.exceptions import LMError

from routedk.errors import RouteDKError, SettingError
from routedk.programs.journal.budget import Budget
from routedk.programs.journal.journaled_lm import journaled_lm
from routedk.programs.prompting.layout import Message
from routedk.programs.teachers.lm_teacher import LMTeacher
from routedk.similarity.words import TfidfEncoder
from routedk.types import Session
from tests.scripted import scripted_lm

Make = Callable[..., Session]
RULES = ["Kettles belong with cups.", "Cables belong with hubs."]
ENCODER = TfidfEncoder(RULES)


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
        make("s4", ["nobody", "annotated", "this"]),
    ]


def test_three_formats_with_provenance(sessions: list[Session]) -> None:
    lm, _ = scripted_lm(script)
    teacher = LMTeacher(lm, encoder=ENCODER, price=lambda read, written: 0.5)
    knowledge = teacher.distill(sessions)
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
    assert teacher.report.kinds == {"invalid": 3}
    assert teacher.report.stated_rules == 3
    assert not teacher.report.stopped


def test_formats_and_links(sessions: list[Session]) -> None:
    def seen(**settings: object) -> list[str]:
        lm, engine = scripted_lm(script)
        LMTeacher(lm, encoder=ENCODER, **settings).distill(sessions)  # type: ignore[arg-type]
        return ["\n".join(m["content"] for m in request) for request in engine.requests]

    thoughts = [text for text in seen() if "One line such as" in text]
    assert all(RULES[0] in text for text in thoughts)
    alone = [text for text in seen(rules_feed_thoughts=False) if "One line such as" in text]
    assert thoughts
    assert alone
    assert not any(RULES[0] in text for text in alone)
    assert not any("Causes" in text for text in seen(formats=["pattern", "thought"]))
    lm, engine = scripted_lm(script)
    knowledge = LMTeacher(lm, formats=["rule"], encoder=ENCODER).distill(sessions)
    assert (knowledge.patterns, knowledge.thoughts) == ((), ())
    assert knowledge.rules
    assert len(engine.requests) == 9


def test_wrong_thoughts_are_dropped_and_counted(sessions: list[Session]) -> None:
    def wrong(messages: list[Message]) -> str:
        if asked(messages) == "One line such as" and "hub" in messages[-1]["content"]:
            return "1 x; 2 y; 3 z"
        return script(messages)

    lm, _ = scripted_lm(wrong)
    teacher = LMTeacher(lm, formats=["thought"], encoder=ENCODER)
    assert [t.session_id for t in teacher.distill(sessions).thoughts] == ["s1", "s3"]
    assert list(teacher.report.dropped_thoughts) == ["s2"]
    assert "1 2 are a bundle" in teacher.report.dropped_thoughts["s2"]
    assert teacher.report.retried_thoughts == 1


def refusing(word: str) -> Callable[[list[Message]], str]:
    def answer(messages: list[Message]) -> str:
        if word in messages[-1]["content"]:
            raise InvalidRequestError("too long a prompt")
        return script(messages)

    return answer


def test_one_bad_session_is_quarantined(sessions: list[Session]) -> None:
    lm, _ = scripted_lm(refusing("hub"))
    teacher = LMTeacher(lm, encoder=ENCODER)
    knowledge = teacher.distill(sessions)
    assert [t.session_id for t in knowledge.thoughts] == ["s1", "s3"]
    told = teacher.report.quarantined
    assert [(q["session_id"], q["step"]) for q in told] == [("s2", "rule"), ("s2", "thought")]
    assert "too long a prompt" in told[0]["error"]


def test_where_every_session_fails_the_run_fails(sessions: list[Session]) -> None:
    lm, _ = scripted_lm(refusing(""))
    with pytest.raises(RouteDKError, match=r"rules: all 3 sessions failed.*too long a prompt"):
        LMTeacher(lm, encoder=ENCODER).distill(sessions)


def test_a_teacher_that_fails_for_good_fails_the_run(sessions: list[Session]) -> None:
    def fail(messages: list[Message]) -> str:
        raise OSError("no power")

    lm, _ = scripted_lm(fail)
    with pytest.raises(LMError, match="no power"):
        LMTeacher(lm, encoder=ENCODER).distill(sessions)


def test_a_budget_stops_with_what_was_made(sessions: list[Session], tmp_path: Path) -> None:
    def thoughts(budget: Budget) -> tuple[int, str, int]:
        lm, engine = scripted_lm(script)
        lm = lm.copy(max_tokens=50)
        with journaled_lm(lm, tmp_path / "journal.jsonl", budget=budget) as journaled:
            teacher = LMTeacher(journaled.lm, formats=["thought"], encoder=ENCODER, num_threads=1)
            made = teacher.distill(sessions).thoughts
        return len(made), teacher.report.stopped, len(engine.requests)

    made, stopped, calls = thoughts(Budget(max_tokens=1))
    assert (made, calls) == (0, 0)
    assert "raise --max-tokens" in stopped
    assert thoughts(Budget()) == (3, "", 3)
    # Paid answers stay within reach of a run without budget left.
    made, stopped, calls = thoughts(Budget(max_tokens=1))
    assert (made, calls) == (3, 0)


def test_what_is_paid_for_is_made_when_the_budget_is_spent(
    sessions: list[Session], tmp_path: Path
) -> None:
    path = tmp_path / "journal.jsonl"
    lm, _ = scripted_lm(script)
    lm = lm.copy(max_tokens=50)
    with journaled_lm(lm, path) as journaled:
        LMTeacher(journaled.lm, encoder=ENCODER).distill(sessions[:1])
    with journaled_lm(lm, path, budget=Budget(max_tokens=1)) as journaled:
        # Without rules, whose number would change what thoughts are asked with.
        teacher = LMTeacher(journaled.lm, encoder=ENCODER, rules_feed_thoughts=False)
        knowledge = teacher.distill(sessions[::-1])
        assert journaled.spent.run.calls == 0
    assert teacher.report.stopped
    assert [rule.text for rule in knowledge.rules] == RULES[:1]


def test_sessions_fail_step_by_step(sessions: list[Session]) -> None:
    def refuse(messages: list[Message]) -> str:
        failing = {"bundle": "sock", "One line such as": "lamp"}.get(asked(messages))
        if failing and failing in messages[-1]["content"]:
            raise InvalidRequestError("too long a prompt")
        return script(messages)

    lm, _ = scripted_lm(refuse)
    teacher = LMTeacher(lm, encoder=ENCODER)
    knowledge = teacher.distill(sessions[:2])
    assert [rule.text for rule in knowledge.rules] == RULES[1:]
    assert [t.session_id for t in knowledge.thoughts] == ["s1"]
    told = [(q["session_id"], q["step"]) for q in teacher.report.quarantined]
    assert told == [("s1", "rule"), ("s2", "thought")]


def test_an_unknown_price_stays_unknown(sessions: list[Session]) -> None:
    lm, _ = scripted_lm(script)
    knowledge = LMTeacher(lm, encoder=ENCODER).distill(sessions)
    assert {rule.provenance.cost for rule in knowledge.rules} == {None}


def test_a_run_from_the_journal_gives_the_same_knowledge(
    sessions: list[Session], tmp_path: Path
) -> None:
    runs = []
    for _ in range(2):
        lm, engine = scripted_lm(script)
        with journaled_lm(lm, tmp_path / "journal.jsonl") as journaled:
            runs.append(LMTeacher(journaled.lm, encoder=ENCODER).distill(sessions))
    assert runs[0] == runs[1]
    assert engine.requests == []


def test_progress_is_told_for_each_session_of_each_step(sessions: list[Session]) -> None:
    steps: list[str] = []
    lm, _ = scripted_lm(script)
    LMTeacher(lm, encoder=ENCODER, on_session=steps.append).distill(sessions)
    assert sorted(steps) == ["rule"] * 3 + ["thought"] * 3


def test_settings_are_checked() -> None:
    lm, _ = scripted_lm(script)
    with pytest.raises(SettingError, match="max_rules=-1"):
        LMTeacher(lm, max_rules=-1)
    with pytest.raises(SettingError, match="num_threads=0"):
        LMTeacher(lm, num_threads=0)
    with pytest.raises(SettingError, match=r"formats \['tips'\]: at least one of pattern, rule"):
        LMTeacher(lm, formats=["tips"])  # type: ignore[list-item]
