import json
from pathlib import Path

import dspy
import pytest

from routedk.errors import DataError, SettingError
from routedk.programs.generator import BundleGenerator
from routedk.programs.sampling.difficulty import difficulty_scores, read_scores, write_scores
from routedk.types import Bundle, Item, Session
from tests.scripted import scripted_lm


def session(name: str, bundles: tuple[Bundle, ...] | None) -> Session:
    return Session(name, tuple(Item(letter, f"thing {letter}") for letter in "abc"), bundles)


def test_matched_f1_of_the_answers() -> None:
    """The student always bundles the first two items."""
    sessions = [
        session("right", (Bundle(("a", "b")),)),
        session("half", (Bundle(("a", "b")), Bundle(("b", "c")))),
        session("near", (Bundle(("a", "b", "c")),)),
        session("none", ()),
    ]
    lm, engine = scripted_lm(lambda messages: "1 2")
    with dspy.context(lm=lm):
        scores = difficulty_scores(BundleGenerator(), sessions, num_threads=2)
    assert list(scores.items()) == [
        ("right", 1.0),
        ("half", pytest.approx(2 / 3)),
        ("near", pytest.approx(2 / 3)),
        ("none", 0.0),
    ]
    assert len(engine.requests) == 4


def test_an_answer_that_cannot_be_read_scores_nothing() -> None:
    lm, _ = scripted_lm(lambda messages: "blah")
    with dspy.context(lm=lm):
        assert difficulty_scores(BundleGenerator(), [session("s", ())]) == {"s": 1.0}
        scored = difficulty_scores(BundleGenerator(), [session("s", (Bundle(("a", "b")),))])
    assert scored == {"s": 0.0}


def test_sessions_without_annotation_are_named() -> None:
    blind = [session(f"s{n}", None) for n in range(7)]
    with pytest.raises(SettingError, match=r"7 sessions have no gold .* e\.g\. s0, s1, s2, s3, s4"):
        difficulty_scores(BundleGenerator(), [*blind, session("t", ())])


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
        ("{}", "keys are none, not session_id, score"),
        ({"session_id": "t"}, "keys are session_id, not session_id, score"),
        ({**GOOD, "f1": 1}, "keys are session_id, score, f1, not"),
        ({**GOOD, "session_id": 1}, "session_id is 1, not a text"),
        (GOOD, "session 's' has a score already"),
        ({"session_id": "t", "score": 1.5}, r"score is 1\.5, not a number in \[0, 1\]"),
        ({"session_id": "t", "score": -1}, "score is -1, not a number"),
        ({"session_id": "t", "score": True}, "score is True, not a number"),
        ({"session_id": "t", "score": None}, "score is None, not a number"),
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
