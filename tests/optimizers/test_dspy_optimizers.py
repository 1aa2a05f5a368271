"""The generator under DSPy's own optimizers, offline, on a scripted language model."""

import re
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest

from routedk.optimizers.feedback import feedback_metric
from routedk.optimizers.metric import as_examples, matched_f1_metric
from routedk.programs.generator import BundleGenerator, load_program
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.predictions import central_prediction
from routedk.programs.prompting.layout import instruction
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.types import Bundle, Item, Session
from tests.scripted import ScriptedEngine, scripted_lm

from .injected import sessions

Message = dict[str, str]

RIGHT, WRONG = "1 2 | magic", "3 4 | nothing"
MAGIC = "Mind the MAGIC."
# What a language model writes where it is asked for a field of one of DSPy's own signatures.
FIELDS = {
    "module_advice": f'{{"generate": "{MAGIC}"}}',
    "proposed_instruction": f"{instruction()} {MAGIC}",
}


TRAIN, VAL = as_examples(sessions("train", 6, "gold")), as_examples(sessions("val", 4, "gold"))


def text_of(messages: list[Message]) -> str:
    return "\n".join(message["content"] for message in messages)


def wanted_fields(messages: list[Message]) -> list[str]:
    """Fields that a signature other than ours asks for; none where the student is asked."""
    _, _, asked = messages[-1]["content"].rpartition("Respond with")
    names: list[str] = re.findall(r"`(?:\[\[ ## )?(\w+)(?: ## \]\])?`", asked)
    return [name for name in names if name != "completed"]


def playing(student: Callable[[list[Message]], bool]) -> Callable[[list[Message]], str]:
    """A script: the student, right where the function says so, and all that optimizers ask."""

    def script(messages: list[Message]) -> str:
        fields = wanted_fields(messages)
        if not fields:
            return RIGHT if student(messages) else WRONG
        lines = [f"[[ ## {name} ## ]]\n{FIELDS.get(name, 'words')}" for name in fields]
        return "\n\n".join([*lines, "[[ ## completed ## ]]"])

    return script


def minds(messages: list[Message]) -> bool:
    return MAGIC in messages[0]["content"]


@pytest.fixture
def lm() -> Iterator[ScriptedEngine]:
    """A student that is right only where its instruction says so."""
    model, engine = scripted_lm(playing(minds))
    with dspy.context(lm=model):
        yield engine


def asked_of_others(engine: ScriptedEngine) -> list[str]:
    return [text_of(messages) for messages in engine.requests if wanted_fields(messages)]


def turns(program: BundleGenerator, session: Session) -> list[tuple[str, str]]:
    """The demos in the prompt: user and assistant messages."""
    contents = [message["content"] for message in program.messages(session)[1:-1]]
    return list(zip(contents[::2], contents[1::2], strict=True))


def test_bootstrap_few_shot(tmp_path: Path) -> None:
    """Traces of what was answered right, then training examples with their gold."""
    model, engine = scripted_lm(playing(lambda m: m[-1]["content"].split()[-1] > "word1"))
    optimizer = dspy.BootstrapFewShot(
        metric=matched_f1_metric, max_bootstrapped_demos=2, max_labeled_demos=3
    )
    with dspy.context(lm=model):
        program = optimizer.compile(BundleGenerator(), trainset=TRAIN)
        program(session=VAL[0].session)
    shown = turns(program, VAL[0].session)
    assert [answer for _, answer in shown] == [RIGHT, RIGHT, "1 2 | gold"]
    assert [items.split()[-1] for items, _ in shown[:2]] == ["word2", "word3"]
    assert shown[2][0].split("\n")[0] in {f"1 thing 0 word{n}" for n in (0, 1, 4, 5)}
    assert engine.requests[-1] == program.messages(VAL[0].session)
    # While a training session is bootstrapped its gold is not in its own prompt.
    for messages in engine.requests[:-1]:
        assert messages[-1]["content"] not in [message["content"] for message in messages[:-1]]
    program.save(tmp_path / "program.json")
    loaded = load_program(tmp_path / "program.json")
    assert loaded.messages(VAL[0].session) == program.messages(VAL[0].session)


def test_no_demo_is_of_the_session_that_is_asked_about() -> None:
    program = dspy.LabeledFewShot(k=6).compile(BundleGenerator(), trainset=TRAIN)
    assert len(turns(program, VAL[0].session)) == 5  # val-0 has the very titles of train-0.
    blind = as_examples([Session("blind", TRAIN[1].session.items)])
    assert "bundles" not in blind[0]
    program.generate.demos = blind
    assert turns(program, VAL[0].session) == []


def test_knn_few_shot() -> None:
    """The nearest training examples, found by titles and not by gold."""
    seen: list[str] = []

    def encode(texts: list[str]) -> Any:
        seen.extend(texts)
        return np.array([[float(f"word{n}" in text) for n in range(6)] for text in texts])

    model, engine = scripted_lm(playing(lambda m: False))
    optimizer = dspy.KNNFewShot(
        k=1,
        trainset=[*TRAIN[1:], *as_examples(sessions("other", 1, "gold"))],
        vectorizer=dspy.Embedder(encode, caching=False),
        metric=matched_f1_metric,
        max_bootstrapped_demos=0,
        max_labeled_demos=1,
    )
    with dspy.context(lm=model):
        program = optimizer.compile(BundleGenerator())
        asked = as_examples(
            [Session("q", (Item("x", "thing word3"), Item("y", "else")), (Bundle(("x", "y")),))]
        )
        program(session=asked[0].session)
    assert seen[-1] == "session: 1 thing word3\n2 else"
    assert not any("gold" in text or "Bundle" in text for text in seen)
    shown = [message["content"] for message in engine.requests[-1][1:-1]]
    assert shown == ["\n".join(f"{i + 1} thing {i} word3" for i in range(4)), "1 2 | gold"]


def test_mipro(lm: ScriptedEngine) -> None:
    optimizer = dspy.MIPROv2(
        metric=matched_f1_metric, auto=None, num_candidates=3, num_threads=1, seed=1
    )
    program = optimizer.compile(
        BundleGenerator(),
        trainset=TRAIN,
        valset=VAL,
        num_trials=5,
        minibatch=False,
        max_bootstrapped_demos=1,
        max_labeled_demos=1,
    )
    assert program.generate.signature.instructions.endswith(MAGIC)
    assert program.score == 100.0
    proposals = [text for text in asked_of_others(lm) if "proposed_instruction" in text]
    assert all(instruction() in text for text in proposals)


def test_gepa() -> None:
    """The reflecting model proposes only what the feedback tells it."""

    def reflect(messages: list[Message]) -> str:
        told = re.search(r'Missed: 1 \\*"thing 0 word\d\\*"', text_of(messages))
        return f'{{"new_instruction": "{MAGIC if told else "Try harder."}"}}'

    model, _ = scripted_lm(playing(minds))
    reflecting, engine = scripted_lm(reflect)
    optimizer = dspy.GEPA(
        metric=feedback_metric,
        reflection_lm=reflecting,
        max_metric_calls=24,
        reflection_minibatch_size=2,
        num_threads=1,
    )
    with dspy.context(lm=model):
        program = optimizer.compile(BundleGenerator(), trainset=TRAIN, valset=VAL)
        answer = program(session=VAL[0].session)
    assert program.generate.signature.instructions == MAGIC
    assert answer.bundles[0].items == VAL[0].session.gold[0]
    assert engine.requests


def test_simba() -> None:
    """A student that is right by turns learns a rule from right and wrong answers."""
    luck = cycle([True, False, False])
    model, engine = scripted_lm(playing(lambda m: minds(m) or next(luck)))
    optimizer = dspy.SIMBA(
        metric=feedback_metric, bsize=4, num_candidates=2, max_steps=2, max_demos=0, num_threads=1
    )
    with dspy.context(lm=model):
        program = optimizer.compile(BundleGenerator(), trainset=TRAIN, seed=0)
    assert program.generate.signature.instructions.endswith(MAGIC)
    assert any("Invented: 3" in text and "1 2 | gold" in text for text in asked_of_others(engine))


def test_copro(lm: ScriptedEngine) -> None:
    student = BundleGenerator(CompiledKnowledge(rules=("my own rule",)))
    optimizer = dspy.COPRO(metric=matched_f1_metric, breadth=2, depth=1)
    program = optimizer.compile(student, trainset=VAL, eval_kwargs={"num_threads": 1})
    system = program.messages(VAL[0].session)[0]["content"]
    assert system == f"{instruction()} {MAGIC}\nRules:\n- my own rule"
    # It tries instructions of both predictors, and only one of them is asked here.
    scores = [candidate["score"] for candidate in program.candidate_programs]
    assert scores == [100.0, 100.0, 100.0, 0.0]
    # The instruction stays with the program that it was made for.
    for untouched in (student.generate.signature, GenerateBundles):
        assert untouched.instructions == instruction()


def test_ensemble() -> None:
    """The answer nearest to all; one that cannot be read has no vote."""

    def script(messages: list[Message]) -> str:
        return {"A": "3 4", "B": "1 2 3", "C": "1 2", "D": "blah"}[messages[0]["content"]]

    programs = []
    for name in "DABC":
        program = BundleGenerator()
        program.generate.signature = program.generate.signature.with_instructions(name)
        programs.append(program)
    ensemble = dspy.Ensemble(reduce_fn=central_prediction).compile(programs)
    model, engine = scripted_lm(script)
    with dspy.context(lm=model):
        answer = ensemble(session=VAL[0].session)
        unread = dspy.Ensemble(reduce_fn=central_prediction).compile(programs[:1])
        assert unread(session=VAL[0].session).error
    # Matched F1 against A, B, C: of A 1, 1/4, 0; of B 1/4, 1, 2/3; of C 0, 2/3, 1.
    assert answer.raw == "1 2 3"
    assert len(engine.requests) == 5
