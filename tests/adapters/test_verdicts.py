import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
import torch

from routedk.adapters.engine.engine import StudentEngine, engine_lm, student_lm
from routedk.adapters.engine.judges import StudentRanker, StudentVerifier
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import Student
from routedk.adapters.training import verdicts
from routedk.adapters.training.examples import training_rows
from routedk.adapters.training.fit import FitSettings, fit
from routedk.adapters.training.stages import TrainingSettings
from routedk.adapters.training.verdicts import (
    NO,
    YES,
    VerifierError,
    encode_verdicts,
    title_nodes,
    training_candidates,
    verdict_head,
)
from routedk.errors import SettingError
from routedk.programs.choosing.likelihood import LikelihoodRanking
from routedk.programs.choosing.verification import Verification
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import build_messages
from routedk.programs.testing import scripted_lm
from routedk.similarity.encoders import TfidfEncoder
from routedk.types import KnowledgeBase, Session

from .conftest import copy_of, make_session

STAGE = TrainingSettings(
    epochs=6, learning_rate=3e-2, batch_size=2, save_steps=50, warmup_steps=1, bf16=False
)
SETTINGS = FitSettings(
    experts=ExpertSettings(r=4, lora_alpha=8, layers=2),
    base=STAGE,
    knowledge=replace(STAGE, epochs=1),
    router=replace(STAGE, epochs=1, share=0.4),
    answer_form="verification",
)


@pytest.fixture
def shop() -> Session:
    return make_session("shop", ["kettle", "tea cup", "usb hub", "usb cable"], [(1, 2), (3, 4)])


@pytest.fixture
def encoder(sessions: list[Session]) -> TfidfEncoder:
    return TfidfEncoder(item.title for session in sessions for item in session.items)


def items(*numbers: int) -> frozenset[str]:
    return frozenset(f"shop-{n}" for n in numbers)


def test_a_candidate_is_named_by_its_item_lines(loaded: Student, shop: Session) -> None:
    assert verdict_head(shop, items(3, 1)) == "1 kettle + 3 usb hub |"
    lines = encode_verdicts(loaded.tokenizer, shop, [items(1, 2), items(1, 3)])
    decode = loaded.tokenizer.decode
    assert [decode(line[:given]) for line, given in lines] == [
        "1 kettle + 2 tea cup |",
        "1 kettle + 3 usb hub |",
    ]
    assert [decode(line[given:]) for line, given in lines] == [" yes<|im_end|>", " no<|im_end|>"]


def test_candidates_are_gold_whole_nodes_and_near_misses(shop: Session) -> None:
    nodes = [items(1, 2), items(1, 2, 3), items(1, 2, 3, 4)]
    found = training_candidates(shop, nodes)
    assert found[:3] == [items(1, 2), items(3, 4), items(1, 2, 3, 4)]
    assert found[3] == items(1, 2, 3)
    assert set(found[4:]) == {items(1, 2, 4), items(1, 3, 4), items(2, 3, 4)}
    assert training_candidates(shop, nodes) == found
    assert all(len(training_candidates(shop, nodes, most=most)) == most for most in range(1, 8))
    orders = {tuple(training_candidates(shop, nodes, seed=seed)) for seed in range(9)}
    assert len(orders) > 2


def test_near_misses_and_nodes_take_turns() -> None:
    titles = [f"item {n}" for n in range(10)]
    session = make_session("big", titles, [(1, 2, 3)])
    names = [item.id for item in session.items]
    nodes = [frozenset(names[: n + 2]) for n in range(9)]
    found = training_candidates(session, nodes)
    assert len(found) == len(set(found)) == 12
    gold = session.gold[0]
    near = [c for c in found if len(c ^ gold) == 1 and c not in nodes]
    assert len(near) == 5
    assert len([c for c in found if c in nodes]) == 7  # The gold bundle is one of them.


def test_rows_of_verification(
    loaded: Student, sessions: list[Session], monkeypatch: pytest.MonkeyPatch, encoder: TfidfEncoder
) -> None:
    monkeypatch.setattr(verdicts, "default_encoder", lambda: encoder)
    shown = CompiledKnowledge(sessions=tuple(sessions))
    rows = training_rows(loaded.tokenizer, sessions, shown, ["base"], "verification")
    assert len(rows) == 6
    for row, session in zip(rows, sessions, strict=True):
        said = [loaded.tokenizer.decode(line[given:]) for line, given in row.lines]
        assert said.count(" yes<|im_end|>") == len(session.gold) == 1
        assert set(said) <= {" yes<|im_end|>", " no<|im_end|>"}
        wanted = training_candidates(session, title_nodes(session))
        assert row.lines == encode_verdicts(loaded.tokenizer, session, wanted)
    alone = [make_session("one", ["kettle"], [])]
    with pytest.raises(SettingError, match="no training session has two items"):
        training_rows(loaded.tokenizer, alone, CompiledKnowledge(), ["base"], "verification")


def test_a_verifier_is_trained_and_used(
    loaded: Student,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    encoder: TfidfEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdicts, "default_encoder", lambda: encoder)
    folder = tmp_path / "experts"
    fit(copy_of(loaded), sessions, knowledge, folder, SETTINGS)
    records = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["stage"] == "base"]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    training = json.loads((folder / "routing.json").read_text())["training"]
    assert training["answer_form"] == "verification"

    lm = student_lm(folder, fusion="single:base")
    lm.cache = False
    verifier = StudentVerifier(lm)
    seen = set()
    for session in sessions:
        candidates = training_candidates(session, title_nodes(session))
        found = verifier(session, candidates)
        assert all(0 <= p <= 1 for p in found.probabilities)
        assert (found.usage.calls, found.usage.output_tokens) == (1, 0)
        assert len(found.probabilities) == len(candidates)
        seen |= {round(p, 4) for p in found.probabilities}
    assert len(seen) > 3
    program = Verification(None, verifier, encoder=encoder)
    answers = [program(session=session) for session in sessions]
    assert [a.bundles for a in answers] == [program(session=s).bundles for s in sessions]
    assert all(len(a.confidences) == len(a.bundles) > 0 for a in answers)

    with dspy.context(lm=lm), pytest.raises(VerifierError, match="writes no bundles: use it with"):
        BundleGenerator()(session=sessions[0])
    with pytest.raises(SettingError, match="trained to verify"):
        StudentRanker(lm)
    lm.engine.close()


def test_a_probability_is_that_of_two_verdicts(routed: RoutedStudent, shop: Session) -> None:
    routed.freeze()
    engine = StudentEngine(routed, form="verification")
    candidates = [items(1, 2), items(2, 3, 4)]
    found = StudentVerifier(engine_lm(engine))(shop, candidates).probabilities
    generator = engine.generator
    prompt = encode_prompt(generator.tokenizer, build_messages(shop))
    for candidate, p in zip(candidates, found, strict=True):
        totals = []
        for verdict in (YES, NO):
            head, tail = (
                generator.tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (verdict_head(shop, candidate), verdict)
            )
            tail = [*tail, generator.end]
            ids = torch.tensor([[*prompt.ids, *head, *tail]])
            with torch.no_grad(), routed.gate_state.use(routed.gates([prompt])):
                scores = generator.base.model(input_ids=ids).logits[0].log_softmax(-1)
            first = ids.shape[1] - len(tail) - 1
            totals.append(sum(float(scores[first + k, token]) for k, token in enumerate(tail)))
        assert p == pytest.approx(float(torch.tensor(totals).softmax(0)[0]), abs=1e-4)
    engine.close()


@pytest.mark.parametrize("form", ["bundles", "item-intents"])
def test_likelihood_ranking_by_a_student(
    form: Any, routed: RoutedStudent, sessions: list[Session], encoder: TfidfEncoder
) -> None:
    routed.freeze()
    lm = engine_lm(StudentEngine(routed, form=form))
    lm.cache = False
    with dspy.context(lm=lm):
        program = LikelihoodRanking(BundleGenerator(), StudentRanker(lm), n=2, encoder=encoder)
        answers = [program(session=session) for session in sessions]
    for answer in answers:
        assert all(score < 0 for score in answer.scores)
        assert answer.calls >= 2
        assert len(answer.confidences) == len(answer.bundles)
    lm.engine.close()


def test_the_lines_of_an_answer_of_item_intents(routed: RoutedStudent, shop: Session) -> None:
    """Answers that differ in one bundle differ in its items' lines only."""
    routed.freeze()
    lm = engine_lm(StudentEngine(routed, form="item-intents"))
    ranker = StudentRanker(lm)
    assert ranker.needs_intents
    both, first, second, none = (
        [replace(bundle, intent="tea") for bundle in bundles]
        for bundles in (shop.bundles or (), shop.bundles[:1], shop.bundles[1:], ())  # type: ignore[index]
    )
    scores = ranker(shop, [both, first, second, none])
    a, b, c, d = scores.totals
    assert a + d == pytest.approx(b + c, abs=1e-3)
    assert len(set(scores.totals)) == 4
    lm.engine.close()


def test_who_may_verify(loaded: Student) -> None:
    lm = engine_lm(StudentEngine(loaded))
    with pytest.raises(SettingError, match="answer form 'bundles' and was not trained to verify"):
        StudentVerifier(lm)
    other, _ = scripted_lm(lambda messages: "none")
    with pytest.raises(SettingError, match="tells no likelihoods"):
        StudentVerifier(other)
