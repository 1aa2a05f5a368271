"""`compile_program`: both teleprompters in turn, kept in the store."""

from pathlib import Path
from typing import Any

import pytest

from routedk.errors import SettingError
from routedk.optimizers.compile import compile_program
from routedk.optimizers.compile_config import CompileConfig
from routedk.types import KnowledgeBase
from tests.scripted import scripted_lm

from .injected import KNOWLEDGE, Script, helped_by, sessions, written

TRAIN, VAL = sessions("train", 22), sessions("val", 12)


def asked(script: Script, store: Path, **settings: Any) -> tuple[Any, int]:
    """The program, and how many requests it took."""
    lm, engine = scripted_lm(script)
    config = CompileConfig(**settings)
    program = compile_program(TRAIN, VAL, KNOWLEDGE, config, lm=lm, store=store)
    return program, len(engine.requests)


def test_prompt_then_grouping(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    lm, _ = scripted_lm(helped_by("1 2 | x"))
    config = CompileConfig(evaluations=4, max_validation=6)
    program = compile_program(
        TRAIN, VAL, KNOWLEDGE, config, lm=lm, store=tmp_path, on_trial=seen.append
    )
    assert program.knowledge.k == 1
    *candidates, grouping = program.trials
    assert [trial["sessions"] for trial in candidates] == [6] * 4
    assert [trial["number"] for trial in seen] == [0, 1, 2, 3]
    assert (grouping["sessions"], grouping["equal_intents_f1"]) == (12, 1.0)


def test_the_same_again_asks_nothing(tmp_path: Path) -> None:
    script = helped_by("the magic rule")
    first, requests = asked(script, tmp_path, evaluations=3)
    assert requests == 3 * 12
    again, requests = asked(script, tmp_path, evaluations=3, threads=2)
    assert requests == 0
    assert (again.trials, again.knowledge) == (first.trials, first.knowledge)
    # Candidates that were scored before are not asked again, whatever else is new.
    _, requests = asked(script, tmp_path, evaluations=3, level=0.1)
    assert requests == 0
    _, requests = asked(script, tmp_path, evaluations=2, instruction=written(["Guess."]))
    assert requests == 12
    lm, engine = scripted_lm(script)
    config = CompileConfig(evaluations=3)
    compile_program(TRAIN[1:], VAL, KnowledgeBase(), config, lm=lm, store=tmp_path)
    assert len(engine.requests) > 12


def test_an_interrupted_compilation_asks_no_answered_session_again(tmp_path: Path) -> None:
    left = 30

    def dying(messages: list[dict[str, str]]) -> str:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return "1 2"

    with pytest.raises(KeyboardInterrupt):
        asked(dying, tmp_path, evaluations=4, threads=1)
    program, requests = asked(lambda messages: "1 2", tmp_path, evaluations=4)
    assert requests == 4 * 12 - 30
    assert len(program.trials) == 4 + 1


def test_exact_numbers_cost_the_grouping_alone(tmp_path: Path) -> None:
    program, requests = asked(lambda messages: "1 2", tmp_path, neighbours=2, rules=0)
    assert requests == 12
    assert (program.knowledge.k, program.knowledge.rules, len(program.trials)) == (2, (), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluations": 0}, "evaluations=0: it must be at least 1"),
        ({"threads": 0}, "threads=0: it must be at least 1"),
        ({"token_budget": 0}, "token_budget=0: it must be at least 1"),
        ({"max_validation": 0}, "max_validation=0: it must be at least 1"),
        ({"dtype": "int8"}, "dtype='int8': allowed are float32"),
        ({"rules": -1}, "rules=-1: it must be at least 0"),
        ({"level": 0}, "level=0: it must be above 0 and below 1"),
        ({"level": 1.0}, "level=1.0: it must be above 0"),
        ({"retriever": "no/such/one"}, "retriever 'no/such/one' is no sentence-transf"),
        ({"utilization": "RAG"}, "utilization='RAG': allowed are ICL, SFT"),
        ({"utilization": "ICL", "evaluations": 1}, "evaluations=1: with utilization 'ICL' at l"),
        ({"utilization": "ICL", "experts": Path("e")}, "utilization 'ICL' trains no experts"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        CompileConfig(**settings)


def test_experts_are_compiled_for_what_they_were_trained_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing = {"training": {"utilization": "SFT"}}
    read = "routedk.adapters.experts.routing_file.read_routing"
    monkeypatch.setattr(read, lambda folder: routing)
    with pytest.raises(SettingError, match=r"'SFT\+ICL': the experts were trained for 'SFT'"):
        asked(lambda m: "1 2", tmp_path, experts=tmp_path, utilization="SFT+ICL")
    program, _ = asked(lambda m: "1 2", tmp_path, experts=tmp_path)
    assert (program.utilization, program.knowledge.rules) == ("SFT", ())
