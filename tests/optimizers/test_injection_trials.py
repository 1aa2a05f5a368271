"""The trials of `KnowledgeInjection`: on what, how many, how compared, at what length."""

from random import Random
from typing import Any

import dspy
import pytest

from routedk.errors import SettingError
from routedk.optimizers.compile_config import CompileConfig
from routedk.optimizers.knowledge_injection import KnowledgeInjection, estimated_tokens
from routedk.optimizers.metric import as_examples
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import Session
from tests.scripted import ScriptedEngine, scripted_lm

from .injected import KNOWLEDGE, TRAIN, VAL, Script, compiled, helped_by


def test_trials_record_what_a_prompt_costs() -> None:
    program = compiled(lambda messages: "1 2", evaluations=3)
    plain, *others = [trial["prompt_characters"] for trial in program.trials]
    contents = [m["content"] for e in VAL for m in BundleGenerator().messages(e.session)]
    assert plain == sum(map(len, contents)) / len(VAL)
    assert all(cost > plain for cost in others)
    assert program.trials[0]["chosen"]


@pytest.mark.parametrize("evaluations", [1, 3, 5])
def test_the_number_of_evaluations_is_kept(evaluations: int) -> None:
    asked: list[object] = []

    def script(messages: object) -> str:
        asked.append(messages)
        return "1 2"

    seen: list[dict[str, Any]] = []
    program = compiled(script, evaluations=evaluations, on_trial=seen.append)
    assert len(asked) == evaluations * len(VAL)
    assert len(program.trials) == len(seen) == evaluations
    assert program.trials[0]["choice"] is None
    assert [program.trials[0][key] for key in ("against", "difference", "p")] == [None] * 3


def test_what_helps_only_together_with_what_seemed_to_help_is_found() -> None:
    """The first instruction gains too little to be kept, but what is built on it gains enough."""

    def script(messages: list[dict[str, str]]) -> str:
        prompt = "\n".join(message["content"] for message in messages)
        luck = messages[-1]["content"].split()[-1] in ("word0", "word1")
        return "1 2" if "magic" in prompt and (luck or "blocks" in prompt) else "3 4"

    texts = ["the magic", "the magic blocks"]
    program = compiled(script, evaluations=3, instructions=texts, level=0.4)
    first, second = program.trials[1:3]
    assert (first["matched_f1"], first["replaced"]) == (pytest.approx(2 / 12), False)
    assert first["p"] == 0.25
    assert (second["against"], second["replaced"], second["chosen"]) == (0, True, True)


def noisy(seed: int) -> Script:
    """A script that is right or wrong at random, depending on the prompt."""

    def script(messages: list[dict[str, str]]) -> str:
        return "1 2" if Random(f"{seed} {messages}").random() < 0.5 else "3 4"

    return script


def test_a_noisy_student_is_left_as_it_was() -> None:
    best = []
    for seed in range(4):
        program = compiled(noisy(seed), evaluations=8)
        assert program.trials[0]["chosen"]
        assert program.knowledge == CompiledKnowledge()
        scores = [trial["matched_f1"] for trial in program.trials]
        best.append(max(scores) - scores[0])
    # By the mean alone it would have been left.
    assert sum(gain > 0.05 for gain in best) >= 3


def test_of_equal_scores_the_shorter_prompt_wins() -> None:
    program = compiled(lambda messages: "1 2", evaluations=6, instructions=["Long. " * 99, "Go."])
    assert program.generate.signature.instructions == "Go."
    assert program.trials[2]["replaced"]
    assert program.knowledge == CompiledKnowledge()


def test_no_prompt_is_over_the_token_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def words(messages: Any) -> int:
        return sum(len(message["content"].split()) for message in messages)

    monkeypatch.setattr(ScriptedEngine, "prompt_tokens", staticmethod(words), raising=False)
    plain = max(words(BundleGenerator().messages(e.session)) for e in VAL)
    script = helped_by("Rules:")
    free = compiled(script, evaluations=12)
    assert max(trial["prompt_tokens"] for trial in free.trials) > plain + 8
    tight = compiled(script, evaluations=12, token_budget=plain + 8)
    assert len(tight.trials) <= 12
    assert all(trial["prompt_tokens"] <= plain + 8 for trial in tight.trials)
    assert tight.knowledge.rules_shown == 1
    assert max(words(tight.messages(e.session)) for e in VAL) <= plain + 8
    assert len(compiled(script, evaluations=12, token_budget=plain).trials) == 1
    message = f"token_budget={plain - 1}: .* has prompts of {plain} tokens already"
    with pytest.raises(SettingError, match=message):
        compiled(script, token_budget=plain - 1)


def test_tokens_are_counted_by_the_student_where_it_can() -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    once = KnowledgeInjection(KNOWLEDGE, CompileConfig(evaluations=1))
    with dspy.context(lm=lm):
        [trial] = once.compile(BundleGenerator(), trainset=TRAIN, valset=VAL).trials
        prompts = [BundleGenerator().messages(e.session) for e in VAL]
        assert trial["prompt_tokens"] == max(map(estimated_tokens, prompts))
        engine.prompt_tokens = lambda messages: 7  # type: ignore[attr-defined]
        [trial] = once.compile(BundleGenerator(), trainset=TRAIN, valset=VAL).trials
    assert trial["prompt_tokens"] == 7
    assert estimated_tokens([{"role": "user", "content": "kettlé"}]) == 3 + 4


def test_seeded() -> None:
    trials = [compiled(helped_by("magic"), evaluations=14, seed=3).trials for _ in range(2)]
    assert trials[0] == trials[1]


def test_unparsable_answers_are_counted_and_score_nothing() -> None:
    [trial] = compiled(lambda messages: "blah", evaluations=1).trials
    assert (trial["unparsable"], trial["matched_f1"]) == (12, 0.0)


def test_no_session_is_both_shown_and_scored() -> None:
    injection = KnowledgeInjection(KNOWLEDGE)
    with pytest.raises(SettingError, match="1 validation sessions are in the training set"):
        injection.compile(BundleGenerator(), trainset=TRAIN, valset=[*VAL, TRAIN[5]])
    with pytest.raises(SettingError, match=r"in what the knowledge was made from, e\.g\. train-0"):
        injection.compile(BundleGenerator(), trainset=VAL, valset=TRAIN)


def test_validation_needs_gold() -> None:
    blind = as_examples([Session(e.session.id, e.session.items) for e in VAL])
    for valset in (blind, None):
        with pytest.raises(SettingError, match="no validation session has gold"):
            compiled(lambda messages: "1 2", valset=valset)
