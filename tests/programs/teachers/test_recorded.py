"""Recorded answers: what is read, what is named as bad, and what is left out."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.data.knowledge_file import sources_of
from routedk.errors import DataError
from routedk.programs.distill import DistillConfig, distill, distill_artifact
from routedk.programs.teachers.recorded import RecordedAnswers
from routedk.types import Session
from tests.conftest import ROOT

Make = Callable[..., Session]
BUNDLES = [{"items": ["s1-1", "s1-2"], "intent": "tea", "kind": "complements", "why": "Brews."}]
ANSWER = {"session_id": "s1", "bundles": BUNDLES, "item_intents": {"s1-1": "tea", "s1-2": "tea"}}
GIVEN = {"bundles": [{"items": [1, 2], "intent": "desk"}]}


def result(session_id: str, content: str, **more: Any) -> dict[str, Any]:
    body = {"model": "gpt-x", "choices": [{"message": {"content": content}}], **more}
    return {"id": "b", "custom_id": session_id, "response": {"body": body}, "error": None}


@pytest.fixture
def sessions(make: Make) -> list[Session]:
    return [make(f"s{n}", ["kettle", "cup", "sock"]) for n in range(1, 5)]


@pytest.fixture
def held_out(make: Make) -> list[Session]:
    return [make("t1", ["hub", "cable"])]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: Any, name: str = "answers.jsonl") -> Path:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / name).write_text("\n".join(texts))
        return tmp_path / name

    return write


def test_answers_rules_and_results_become_knowledge(
    sessions: list[Session], written: Callable[..., Path], tmp_path: Path
) -> None:
    composed = {
        "session_id": "mixed",
        "items": [{"id": "s1-1", "title": "kettle"}, {"id": "s2-3", "title": "sock"}],
        "bundles": [],
    }
    path = written(
        ANSWER,
        composed,
        {"text": "Kettles belong with cups.", "cause": "x", "sessions": ["s1", "s2"]},
        result("s2", json.dumps(GIVEN), usage={"total_tokens": 7}),
        {**ANSWER, "session_id": "s3", "bundles": [], "item_intents": {}, "teacher": "Ada"},
    )
    made = distill(sessions, DistillConfig(answers=(path,)), store=tmp_path)
    teachers = {a.session_id: a.provenance.teacher for a in made.answers}
    assert teachers == {
        "s1": "answers.jsonl",
        "mixed": "answers.jsonl",
        "s2": "gpt-x",
        "s3": "Ada",
    }
    assert [len(a.items) for a in made.answers] == [0, 2, 0, 0]
    assert made.answers[2].provenance.tokens == 7
    assert made.answers[0].bundles[0].why == "Brews."
    assert [rule.provenance.sessions for rule in made.rules] == [("s1", "s2")]
    assert {t.session_id: t.text for t in made.thoughts} == {
        "s1": "1 tea; 2 tea; 3 none; why: Brews.",
        "mixed": "1 none; 2 none",
        "s2": "1 desk; 2 desk; 3 none",
        "s3": "1 none; 2 none; 3 none",
    }
    named = distill(sessions, DistillConfig(answers=(path,), teacher="Bea"), store=tmp_path)
    assert {piece.provenance.teacher for piece in named.pieces} == {"Bea"}
    some = DistillConfig(answers=(path,), formats=("answer",))
    assert {type(p).__name__ for p in distill(sessions, some, store=tmp_path).pieces} == {
        "TeacherAnswer"
    }


def test_patterns_where_there_are_categories(
    make: Make, written: Callable[..., Path], tmp_path: Path
) -> None:
    paths = [("Tea",), ("Mugs",), ()]
    sessions = [make(f"s{n}", ["a", "b", "c"], [], paths) for n in range(2)]
    lines = [
        {"session_id": s.id, "bundles": [{"items": [s.items[0].id, s.items[1].id]}]}
        for s in sessions
    ]
    config = DistillConfig(answers=(written(*lines),))
    (pattern,) = distill(sessions, config, store=tmp_path).patterns
    assert pattern.categories == ("Mugs", "Tea")
    assert pattern.provenance.teacher == "answers.jsonl"


def test_bundles_that_do_not_follow_from_the_intents_make_no_thought(
    sessions: list[Session], written: Callable[..., Path], tmp_path: Path
) -> None:
    apart = {**ANSWER, "item_intents": {"s1-1": "tea", "s1-2": "cups"}}
    made = distill(sessions, DistillConfig(answers=(written(apart),)), store=tmp_path)
    assert (len(made.answers), made.thoughts) == (1, ())


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"session_id": "s1"', "invalid JSON"),
        ("[1]", "expected a JSON object, found list"),
        ({"id": "s1"}, "no session_id, custom_id or text"),
        ({"session_id": "s1"}, "bundles: Field required"),
        ({"session_id": "what", "bundles": []}, "unknown session 'what'"),
        ({"session_id": "s1", "bundles": [{"items": ["s1-1"]}]}, "it needs at least two items"),
        ({"session_id": "s1", "bundles": [{"items": ["s1-1", "x"]}]}, r"a bundle names \['x'\]"),
        ({**ANSWER, "bundles": BUNDLES * 2}, "a bundle is stated twice"),
        ({**ANSWER, "item_intents": {"x": "tea"}}, r"item_intents names \['x'\]"),
        ({**ANSWER, "items": [{"id": "s1-1"}, {"id": "s1-2"}]}, "has other items in the data set"),
        ({**ANSWER, "bundles": [{**BUNDLES[0], "kind": "twins"}]}, "kind: .*found 'twins'"),
        ({"session_id": "s4", "bundles": []}, r"session 's4' came before, in .*answers.jsonl:1"),
        ({"text": "Rule.", "sessions": ["what"]}, "unknown session 'what'"),
        ({"text": ""}, "text: String should have at least 1"),
        (result("what", "{}"), "unknown session 'what'"),
        (result("s1", "no idea"), "session 's1': no JSON object with a list of bundles in: no"),
        ({"custom_id": "s1", "response": None, "error": {"message": "late"}}, "failed: late"),
        (
            {"custom_id": "s1", "response": {"body": {"error": {"code": "429"}}}},
            "the request for session 's1' failed: 429",
        ),
        ({"custom_id": "s1", "response": {"status_code": 500}}, "'s1' failed: status 500$"),
        (
            {
                "custom_id": "s1",
                "response": {"status_code": 429, "body": {"error": {"message": "slow down"}}},
            },
            "'s1' failed: status 429: slow down$",
        ),
        (
            {**result("s1", json.dumps(GIVEN)), "response": {"status_code": "400", "body": {}}},
            "'s1' failed: status 400$",
        ),
        (
            {"custom_id": "s1", "response": {"body": {}}},
            "response.body: choices.1.message.content: Field",
        ),
        ({"custom_id": "s1"}, "response.body: .*found None"),
    ],
)
def test_a_bad_line_is_named_and_the_good_ones_are_used(
    line: Any, problem: str, sessions: list[Session], written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written({"session_id": "s4", "bundles": []}, line)
    made = distill_artifact(sessions, DistillConfig(answers=(path,)), store=tmp_path)
    told = json.loads((made.folder / "report.json").read_text())
    assert told["counts"]["answers"] == 1
    (bad,) = told["bad_lines"]
    assert (bad["file"], bad["line"]) == (str(path), 2)
    assert re.search(problem, bad["problem"])


def test_a_file_given_twice_adds_nothing(
    sessions: list[Session], written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(ANSWER)
    knowledge = distill(sessions, DistillConfig(answers=(path, path)), store=tmp_path)
    assert [answer.session_id for answer in knowledge.answers] == ["s1"]


def test_parts_of_results_that_are_dropped_are_told(
    sessions: list[Session], written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(result("s1", '{"bundles": [{"items": [1, 2, 7]}]}'))
    made = distill_artifact(sessions, DistillConfig(answers=(path,)), store=tmp_path)
    told = json.loads((made.folder / "report.json").read_text())
    assert told["dropped"] == [{"session_id": "s1", "dropped": "no such item: 7"}]


def test_nothing_is_learned_from_other_sessions(
    sessions: list[Session], held_out: list[Session], written: Callable[..., Path], tmp_path: Path
) -> None:
    items = [{"id": "t1-1", "title": "hub"}, {"id": "t1-2", "title": "cable"}]
    path = written(
        {"session_id": "t1", "bundles": []},
        {"session_id": "composed", "items": items, "bundles": []},
        {"session_id": "half", "items": [items[0], {"id": "s1-1"}], "bundles": []},
        {"text": "Hubs belong with cables.", "sessions": ["s1", "t1"]},
        *({"session_id": s.id, "bundles": []} for s in sessions),
        {"text": "Kettles belong with cups.", "sessions": ["s1"]},
        {"text": "Cups belong with tea.", "sessions": []},
    )
    config = DistillConfig(answers=(path,), ratio=0.5, max_rules=1)
    artifact = distill_artifact(sessions, config, store=tmp_path, held_out=held_out)
    told = json.loads((artifact.folder / "report.json").read_text())
    assert told["bad_lines"] == []
    assert told["left_out"] == {
        "of other sessions of the data set": 2,
        "composed of items of other sessions of the data set": 2,
        "of sessions not sampled": 2,
        "rules beyond max_rules=1": 1,
    }
    assert told["counts"]["answers"] == 2
    made = distill(sessions, config, store=tmp_path, held_out=held_out)
    assert sources_of(made) <= {session.id for session in sessions}


def test_no_usable_line_is_an_error(
    sessions: list[Session], held_out: list[Session], written: Callable[..., Path], tmp_path: Path
) -> None:
    for lines, found in (
        (["{", "[]"], r"2 bad lines, answers.jsonl:1: invalid JSON"),
        ([{"session_id": "t1", "bundles": []}], "1 left out: of other sessions"),
        ([], "empty"),
    ):
        reader = RecordedAnswers(sessions, sessions, held_out)
        with pytest.raises(DataError, match=f"no line can be used: .*{found}"):
            reader.read([written(*lines)])
    with pytest.raises(DataError, match="no such file"):
        distill(sessions, DistillConfig(answers=(tmp_path / "gone",)), store=tmp_path)


def test_the_example_of_the_documentation(make: Make, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    section = text.split("## Recorded answers")[1]
    (tmp_path / "a.jsonl").write_text(section.split("```json\n")[1].split("```")[0])
    records = [("s1", "abc"), ("s2", "de"), ("s3", "fg")]
    sessions = [
        load_session({"session_id": name, "items": [{"id": i, "title": i} for i in ids]})
        for name, ids in records
    ]
    reader = RecordedAnswers(sessions, sessions)
    reader.read([tmp_path / "a.jsonl"])
    assert reader.bad_lines == []
    assert [a.session_id for a in reader.answers] == ["s1", "s2", "mixed-1", "s3"]
    assert [a.provenance.teacher for a in reader.answers] == [*["a.jsonl"] * 3, "gpt-4o-mini"]
    assert reader.rules[0].provenance.teacher == "our merchandisers"


def load_session(record: dict[str, Any]) -> Session:
    from routedk.data.records import session_from_record

    return session_from_record(record)


@pytest.mark.parametrize(("domain", "count"), [("electronic", 623), ("clothing", 698)])
def test_the_recorded_answers_of_a_large_model(
    domain: str, count: int, bundlerec: Path, teacher: Path, tmp_path: Path
) -> None:
    folder = bundlerec / domain
    options = DataOptions(
        extra_titles=folder / "item_titles_extra.csv", split_file=folder / "split_aicl.json"
    )
    sessions = load_sessions(folder, options)
    train = split_sessions(sessions, options)["train"]
    chosen = {session.id for session in train}
    held_out = [session for session in sessions if session.id not in chosen]
    names = ("train.jsonl", "composed.jsonl", "rules.jsonl", "test.jsonl")
    config = DistillConfig(answers=tuple(teacher / domain / name for name in names))
    artifact = distill_artifact(train, config, store=tmp_path, held_out=held_out)
    told = json.loads((artifact.folder / "report.json").read_text())
    assert (told["bad_lines"], told["dropped"]) == ([], [])
    assert told["left_out"]["of other sessions of the data set"] == 180
    made = distill(train, config, store=tmp_path, held_out=held_out)
    own = Counter(bool(answer.items) for answer in made.answers)
    assert own[False] == count
    # The hundred of training sessions, but for those of items that test sessions have, too.
    assert 95 <= own[True] <= 100
    assert all(a.session_id.startswith("train-") for a in made.answers if a.items)
    assert len(made.rules) == 20
    assert len(made.thoughts) > 0.97 * len(made.answers)
    assert {b.kind for a in made.answers if not a.items for b in a.bundles} == {
        "complements",
        "alternatives",
        "mixed",
    }
