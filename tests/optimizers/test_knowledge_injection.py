"""What `KnowledgeInjection` chooses."""

from pathlib import Path

import dspy
import pytest

from routedk.errors import SettingError
from routedk.optimizers.compile_config import CompileConfig
from routedk.optimizers.knowledge_injection import KnowledgeInjection
from routedk.programs.generator import BundleGenerator, load_program
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Pattern, Rule
from tests.scripted import scripted_lm

from .injected import KNOWLEDGE, MADE, TRAIN, VAL, compiled, helped_by, written


def test_a_rule_that_helps_is_chosen() -> None:
    program = compiled(helped_by("the magic rule"), evaluations=30)
    assert "the magic rule" in program.knowledge.rules
    assert program.knowledge.k == 0
    best = next(trial for trial in program.trials if trial["chosen"])
    assert best["matched_f1"] == 1.0
    assert best["choice"]["rules"] >= 1


def test_the_nearest_rules_are_chosen_where_they_help() -> None:
    """A student that is right only where the rule that fits its session stands last of few."""

    def script(messages: list[dict[str, str]]) -> str:
        *few, rule = messages[0]["content"].split("\n")
        fits = rule.endswith(messages[-1]["content"].split()[-1])
        return "1 2" if fits and len(few) < 5 else "3 4"

    rules = tuple(Rule(text=f"rule of word{n}", provenance=MADE) for n in range(12))
    program = compiled(script, knowledge=KnowledgeBase(rules=rules))
    assert program.knowledge.rules == tuple(rule.text for rule in rules)
    assert program.knowledge.rules_shown == 1
    best = next(trial for trial in program.trials if trial["chosen"])
    assert (best["matched_f1"], best["choice"]["rules"]) == (1.0, 1)


def test_the_nearest_patterns_are_chosen_where_they_help() -> None:
    numbers = {"support": 0.1, "confidence": 0.5, "lift": 2.0}
    patterns = tuple(
        Pattern(categories=(f"word{n}", "Things"), **numbers, provenance=MADE) for n in range(12)
    )

    def script(messages: list[dict[str, str]]) -> str:
        own = messages[-1]["content"].split()[-1]
        return "1 2" if messages[0]["content"].endswith(f"- {own} + Things") else "3 4"

    program = compiled(script, knowledge=KnowledgeBase(patterns=patterns))
    assert (program.knowledge.patterns, program.knowledge.patterns_shown) == (patterns, 3)


def test_sft_keeps_the_plain_program() -> None:
    program = compiled(helped_by("the magic rule"), evaluations=30, utilization="SFT")
    assert program.knowledge == CompiledKnowledge()
    assert (len(program.trials), program.utilization) == (1, "SFT")


@pytest.mark.parametrize("name", ["ICL", "SFT+ICL"])
def test_icl_shows_knowledge_even_where_it_does_not_help(name: str) -> None:
    def script(messages: list[dict[str, str]]) -> str:
        return "3 4" if len(messages) > 2 else "1 2"

    program, free = compiled(script, utilization=name), compiled(script)
    assert free.trials[0]["chosen"]
    assert free.utilization is None
    assert not program.trials[0]["chosen"]
    assert program.knowledge.rules
    assert program.utilization == name
    plain = [{k: v for k, v in t.items() if k != "chosen"} for t in program.trials]
    assert plain == [{k: v for k, v in t.items() if k != "chosen"} for t in free.trials]


def test_neighbours_alone_are_no_knowledge() -> None:
    program = compiled(
        lambda messages: "1 2" if len(messages) > 2 and "Th" not in str(messages) else "3 4",
        evaluations=30,
        utilization="ICL",
    )
    assert any(trial["matched_f1"] == 1.0 for trial in program.trials)
    assert program.knowledge.rules or program.knowledge.show_thoughts


@pytest.mark.parametrize("retriever", ["tfidf", "minilm"])
def test_neighbours_that_help_are_chosen(retriever: str) -> None:
    program = compiled(helped_by("1 2 | x"), evaluations=4, retriever=retriever)
    assert (program.knowledge.k, program.knowledge.retriever) == (1, retriever)
    assert {session.id for session in program.knowledge.sessions} == {
        f"train-{n}" for n in range(22)
    }


def test_a_model_that_cannot_be_loaded_stops_before_anything_is_scored(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    lm, engine = scripted_lm(lambda messages: "1 2")
    teleprompter = KnowledgeInjection(KNOWLEDGE, CompileConfig(retriever=str(tmp_path)))
    with dspy.context(lm=lm), pytest.raises(SettingError, match="cannot be loaded"):
        teleprompter.compile(BundleGenerator(), trainset=TRAIN, valset=VAL)
    assert engine.requests == []


def test_the_student_stays_where_nothing_helps() -> None:
    program = compiled(lambda messages: "1 2 3", evaluations=8)  # more than there are candidates
    assert program.knowledge == BundleGenerator().knowledge
    assert [trial["chosen"] for trial in program.trials] == [True] + [False] * 4
    assert len({trial["matched_f1"] for trial in program.trials}) == 1


def test_a_student_with_knowledge_is_the_first_candidate() -> None:
    student = BundleGenerator(CompiledKnowledge(rules=("my own rule",)))
    program = compiled(helped_by("my own rule"), student, evaluations=5)
    assert program.knowledge.rules == ("my own rule",)
    assert program is not student
    assert student.trials == []


def test_an_instruction_that_helps_is_chosen(tmp_path: Path) -> None:
    texts = ["Guess.", "Bundle as the golden book says.", "Guess again."]
    program = compiled(helped_by("golden book"), instructions=texts, evaluations=4)
    assert program.generate.signature.instructions == texts[1]
    assert program.knowledge == CompiledKnowledge()
    assert [trial["choice"]["instruction"] for trial in program.trials[1:]] == texts
    program.save(tmp_path / "program.json")
    loaded = load_program(tmp_path / "program.json")
    assert loaded.messages(VAL[0].session) == program.messages(VAL[0].session)


def test_an_empty_instruction_is_refused() -> None:
    with pytest.raises(SettingError, match=r"instruction '.*1\.txt': the file is empty"):
        KnowledgeInjection(KNOWLEDGE, CompileConfig(instruction=written(["a", " \n"])))


def test_exact_numbers_are_shown_untried() -> None:
    def script(messages: object) -> str:
        raise AssertionError("nothing is asked")

    program = compiled(script, neighbours=1, rules=2, utilization="SFT+ICL")
    knowledge = program.knowledge
    assert (knowledge.k, knowledge.rules_shown, len(knowledge.rules)) == (1, 2, 3)
    assert knowledge.show_thoughts
    assert (program.trials, program.utilization) == ([], "SFT+ICL")
    assert compiled(script, patterns=3).knowledge == CompiledKnowledge()
    assert compiled(script, rules=9).knowledge.rules_shown is None
    assert compiled(script, rules=2, utilization="SFT").knowledge == CompiledKnowledge()
