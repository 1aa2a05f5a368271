import json
from pathlib import Path
from typing import Any

import dspy
import pytest

from routedk.errors import ArtifactError
from routedk.programs.generator import BundleGenerator, load_program
from routedk.programs.grouping.similar_intents import SimilarIntents
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import Pattern, Provenance, Session


@pytest.fixture
def program(training: list[Session]) -> BundleGenerator:
    knowledge = CompiledKnowledge(
        rules=("kettles go with cups", "socks stay out"),
        rules_shown=1,
        k=2,
        sessions=tuple(training),
        thoughts={"t1": "kettle, mug", "elsewhere": "not shown"},
        show_thoughts=True,
    )
    generator = BundleGenerator(knowledge)
    generator.utilization = "ICL"
    generator.trials = [{"number": 0, "matched_f1": 0.5, "choice": None}]
    return generator


def test_saved_and_loaded_asks_the_same(
    program: BundleGenerator, tea: Session, tmp_path: Path
) -> None:
    program.generate.signature = program.generate.signature.with_instructions("Do it well.")
    program.generate.demos = [dspy.Example(session="1 x\n2 y", thought="", bundles="1 2")]
    program.save(tmp_path / "program.json")
    loaded = load_program(tmp_path / "program.json")
    assert loaded.messages(tea) == program.messages(tea)
    assert loaded.messages(tea)[0]["content"].startswith("Do it well.")
    assert loaded.messages(tea)[0]["content"].endswith("Rules:\n- kettles go with cups")
    assert loaded.trials == program.trials
    assert loaded.utilization == "ICL"
    other = BundleGenerator()
    other.load(tmp_path / "program.json")
    assert other.messages(tea) == program.messages(tea)


def with_patterns() -> BundleGenerator:
    provenance = Provenance(teacher="annotation", sessions=("t1", "t2"))
    names = (("Kettles", "Mugs"), ("Hubs", "Cables"))
    patterns = tuple(
        Pattern(categories=pair, support=0.2, confidence=0.5, lift=1.5, provenance=provenance)
        for pair in names
    )
    return BundleGenerator(CompiledKnowledge(patterns=patterns, patterns_shown=1))


def test_patterns_are_kept(tea: Session, tmp_path: Path) -> None:
    program = with_patterns()
    program.save(tmp_path / "program.json")
    loaded = load_program(tmp_path / "program.json")
    assert loaded.messages(tea)[0]["content"].endswith("Often bundled together:\n- Kettles + Mugs")
    assert loaded.messages(tea) == program.messages(tea)
    assert "t1" not in (tmp_path / "program.json").read_text()


def _as_before_patterns(file: Path) -> None:
    record = json.loads(file.read_text())
    record["layout"] = "117a13036d43ef34"
    record["fields"].remove("patterns")
    del record["knowledge"]["patterns_shown"]
    del record["utilization"]
    if not record["knowledge"]["patterns"]:
        del record["knowledge"]["patterns"]
    file.write_text(json.dumps(record))


def test_programs_from_before_there_were_patterns_still_load(
    program: BundleGenerator, tea: Session, tmp_path: Path
) -> None:
    file = tmp_path / "program.json"
    program.save(file)
    _as_before_patterns(file)
    assert load_program(file).messages(tea) == program.messages(tea)


def test_groupings_that_fell_back_or_compared_likelihoods_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "program.json"
    BundleGenerator(grouping=SimilarIntents(weight=0.5, threshold=0.4)).save(file)
    assert load_program(file).grouping == SimilarIntents(weight=0.5, threshold=0.4)
    record = json.loads(file.read_text())
    record["grouping"]["fall_back"] = True
    file.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=r"grouping.fall_back: .* .compile the program again"):
        load_program(file)


def test_no_secret_and_no_pickle(program: BundleGenerator, tmp_path: Path) -> None:
    lm = dspy.LM("openai/gpt-4o-mini", api_key="sk-secret")
    program.set_lm(lm)
    program.save(tmp_path / "program.json")
    text = (tmp_path / "program.json").read_text()
    assert "secret" not in text
    assert "gpt-4o" not in text
    assert "not shown" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["program.json"]


def test_sessions_that_are_not_shown_are_left_out(training: list[Session], tmp_path: Path) -> None:
    BundleGenerator(CompiledKnowledge(sessions=tuple(training))).save(tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text())["knowledge"]["sessions"] == []


def _edit(record: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        record = record[parent]
    record[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "kind",
            "routedk.knowledge",
            "kind: Input should be 'routedk.program', found 'routedk.knowledge'",
        ),
        (
            "schema_version",
            99,
            "schema_version: Input should be 1, found 99 .compile the program again",
        ),
        (
            "layout",
            "0" * 16,
            r"under prompt layout 0000000000000000, this version has [0-9a-f]{16} .compile",
        ),
        ("fields", ["question"], r"a signature with the fields \['question'\]"),
        ("instruction", None, "instruction: Input should be a valid string"),
        ("knowledge.k", -1, "the program cannot be used: k=-1"),
        ("knowledge.k", "two", r"knowledge\.k: Input should be a valid integer"),
        ("knowledge.rules_shown", 0, "the program cannot be used: rules_shown=0"),
        ("knowledge.patterns_shown", 0, "the program cannot be used: patterns_shown=0"),
        ("knowledge.patterns", [{}], r"knowledge\.patterns\.1\.categories: Field required"),
        (
            "knowledge.retriever",
            "no/such/folder",
            "retriever 'no/such/folder' is no sentence-transformers",
        ),
        ("knowledge.sessions", [], "k=2 without training sessions"),
        ("knowledge.sessions", [{"session_id": "x"}], "items: Field required"),
        ("utilization", "RAG", "utilization: Input should be 'ICL'"),
        ("surprise", 1, "surprise: Extra inputs"),
    ],
)
def test_what_is_loaded_is_checked(
    path: str, value: object, message: str, program: BundleGenerator, tmp_path: Path
) -> None:
    file = tmp_path / "program.json"
    program.save(file)
    record = json.loads(file.read_text())
    _edit(record, path, value)
    file.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=message):
        load_program(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "invalid JSON"),
        ("[]", "Input should be a valid dictionary"),
        ("\x80", "UTF-8|invalid JSON"),
    ],
)
def test_missing_or_damaged(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "program.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ArtifactError, match=message):
        load_program(file)


def test_the_fingerprint_is_of_what_answers_depend_on(
    program: BundleGenerator, tmp_path: Path
) -> None:
    program.save(tmp_path / "program.json")
    loaded = load_program(tmp_path / "program.json")
    loaded.trials = []
    assert loaded.fingerprint() == program.fingerprint()
    loaded.generate.demos = [{"session": "1 a\n2 b", "bundles": "1 2"}]
    assert loaded.fingerprint() != program.fingerprint()
