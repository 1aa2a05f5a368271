import json
from pathlib import Path

import pytest
from dspy.lm15 import InvalidRequestError

from routedk.errors import DataError
from routedk.programs.sampling.difficulty import (
    difficulty_scores,
    read_scores,
    score_sessions,
    write_scores,
)
from routedk.programs.teachers.asker import Asker
from routedk.types import Bundle, Item, Session
from tests.scripted import scripted_lm


def session(name: str, bundles: tuple[Bundle, ...] | None) -> Session:
    return Session(name, tuple(Item(letter, f"thing {letter}") for letter in "abc"), bundles)


def test_matched_f1_of_the_answers() -> None:
    """The model always bundles the first two items."""
    sessions = [
        session("right", (Bundle(("a", "b")),)),
        session("half", (Bundle(("a", "b")), Bundle(("b", "c")))),
        session("near", (Bundle(("a", "b", "c")),)),
        session("none", ()),
    ]
    lm, engine = scripted_lm(lambda messages: "1 2")
    steps: list[tuple[str, int, int]] = []
    scores = difficulty_scores(
        sessions, Asker(lm, threads=1, on_step=lambda *step: steps.append(step))
    )
    assert list(scores.items()) == [
        ("right", 1.0),
        ("half", pytest.approx(2 / 3)),
        ("near", pytest.approx(2 / 3)),
        ("none", 0.0),
    ]
    assert len(engine.requests) == 4
    assert steps == [("score", done, 4) for done in (1, 2, 3, 4)]


def test_an_answer_that_cannot_be_had_or_read_scores_nothing() -> None:
    def script(messages: list[dict[str, str]]) -> str:
        if "refused" in messages[-1]["content"]:
            raise InvalidRequestError("too long")
        return "blah"

    lm, _ = scripted_lm(script)
    gold = (Bundle(("a", "b")),)
    refused = Session("refused", (Item("a", "refused"), Item("b", "x")), gold)
    assert difficulty_scores([session("s", gold), refused], Asker(lm)) == {"s": 0.0, "refused": 0.0}
    assert difficulty_scores([session("s", ())], Asker(lm)) == {"s": 1.0}


def test_scores_are_made_once(tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    sessions = [session("s", (Bundle(("a", "b")),)), session("blind", None)]
    for _ in range(2):
        assert read_scores(score_sessions(sessions, lm, store=tmp_path)) == {"s": 1.0}
    assert len(engine.requests) == 1
    score_sessions(sessions, lm.copy(temperature=0.5), store=tmp_path)
    assert len(engine.requests) == 2


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "scores.jsonl"
    scores = {"b": 0.25, "é": 1.0, "a": 0.0}
    write_scores(path, scores)
    assert path.read_text("utf-8").splitlines()[1] == '{"session_id": "é", "score": 1.0}'
    assert list(read_scores(path).items()) == list(scores.items())


GOOD = {"session_id": "s", "score": 1}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "invalid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "session_id: Field required"),
        ({**GOOD, "f1": 1}, "f1: Extra inputs are not permitted"),
        (GOOD, "session 's' has a score already"),
        ({"session_id": "t", "score": 1.5}, "score: Input should be less than or equal to 1"),
        ({"session_id": "t", "score": -1}, "score: Input should be greater than or equal to 0"),
        ({"session_id": "t", "score": True}, "score: Input should be a valid number"),
        ('{"session_id": "t", "score": NaN}', "NaN is not a JSON number"),
    ],
)
def test_a_broken_line_is_named(bad: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    line = bad if isinstance(bad, str) else json.dumps(bad)
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_scores(path)
    assert f"{path}:2: " in str(caught.value)
