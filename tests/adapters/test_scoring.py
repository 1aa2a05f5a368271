import math
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
import torch

from routedk.adapters.engine import likelihoods, passes
from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.engine.likelihoods import (
    Continuation,
    Likelihood,
    grow_scoring_tree,
    scoring_job,
)
from routedk.adapters.engine.scoring import Scorer, scorer_of
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import Student
from routedk.errors import SettingError
from routedk.programs.batch import call_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.prompting.layout import build_messages, render_items
from routedk.types import Session
from tests.scripted import scripted_lm

from .conftest import copy_of, randomise

FUSIONS = ("softmax", "single:rule", "layerwise", "sparsegen")
WANTED = [
    Continuation(" yes", "1 kettle + 2 tea cup |"),
    Continuation(" no", "1 kettle + 2 tea cup |"),
    Continuation("1 2 | brewing tea"),
    Continuation(" yes", "1 kettle |"),
    Continuation("1 2 | brewing tea\n3 4 | desk setup"),
    Continuation("", "1 kettle |"),
    Continuation(""),
]


@pytest.fixture(scope="module", params=["plain", "from start", *FUSIONS])
def scorer(request: pytest.FixtureRequest, loaded: Student) -> Iterator[Scorer]:
    exact = copy_of(loaded)
    exact.model.double()  # Else rounding alone is about 1e-4.
    student: RoutedStudent | Student = exact
    if request.param != "plain":
        early = request.param == "from start"
        shape = ExpertSettings(experts_from="start" if early else "session")
        student = RoutedStudent(exact, shape)
        student.use_fusion("softmax" if early else request.param)
        randomise(student).freeze()
    lm = engine_lm(StudentEngine(student))
    yield scorer_of(lm)
    lm.engine.close()


def alone(scorer: Scorer, session: Session, wanted: Continuation) -> tuple[float, int]:
    """One completion by one plain forward pass: no tree, no padding, no mask."""
    generator = scorer.engine.generator
    prompt = encode_prompt(
        generator.tokenizer, build_messages(session), render_items(session).split("\n")
    )
    job = scoring_job(generator.tokenizer, prompt, [wanted])
    tail = job.tails[0]
    ids = torch.tensor([[*prompt.ids, *job.heads[0], *tail]])
    with torch.no_grad(), generator.known.gating([prompt])([0]):
        scores = generator.base.model(input_ids=ids).logits[0].log_softmax(-1)
    places = range(ids.shape[1] - len(tail) - 1, ids.shape[1] - 1)
    return sum(float(scores[k, token]) for k, token in zip(places, tail, strict=True)), len(tail)


def test_lines_are_scored_each_with_each_text(scorer: Scorer, sessions: list[Session]) -> None:
    session = sessions[0]
    lines, texts = render_items(session).split("\n"), ["brewing tea", "none"]
    found = scorer.engine.score_lines(build_messages(session), lines, texts)
    assert found.totals.shape == (len(session.items), 2)
    for row, line in zip(found.totals, lines, strict=True):
        for total, text in zip(row, texts, strict=True):
            wanted, _ = alone(scorer, session, Continuation(f" {text}", f"{line} |"))
            assert total == pytest.approx(wanted, abs=1e-5)


def test_a_tree_equals_one_by_one(scorer: Scorer, sessions: list[Session]) -> None:
    found = scorer.many([(build_messages(session), WANTED) for session in sessions])
    totals = set()
    for session, scored in zip(sessions, found, strict=True):
        for wanted, mine in zip(WANTED, scored.likelihoods, strict=True):
            total, tokens = alone(scorer, session, wanted)
            assert mine.total == pytest.approx(total, abs=1e-5)
            assert mine.tokens == tokens
            assert mine.mean == pytest.approx(total / tokens, abs=1e-5)
            totals.add(round(total, 3))
    assert len(totals) > 30


def test_limits_change_nothing(
    scorer: Scorer, sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [(build_messages(session), WANTED) for session in sessions]
    whole = scorer.many(requests)
    monkeypatch.setattr(likelihoods, "_TREE_TOKENS", 20)
    monkeypatch.setattr(passes, "_TOKENS", {"cpu": 300})
    monkeypatch.setattr(likelihoods, "_PLACES", 3)
    for one, other in zip(whole, scorer.many(requests), strict=True):
        assert [x.total for x in one.likelihoods] == pytest.approx(
            [x.total for x in other.likelihoods], abs=1e-5
        )
        assert one.tokens < other.tokens


def test_probabilities_of_every_next_token_sum_to_one(loaded: Student) -> None:
    size = loaded.model.config.vocab_size
    tree = grow_scoring_tree([5, 6, 7], [(8, 9)] * size, [(token,) for token in range(size)])
    assert len(tree.input_ids) == 5  # One head; a token that nothing follows is not read.
    (found,) = likelihoods.score_trees(loaded.model, [tree])
    assert sum(math.exp(one.total) for one in found) == pytest.approx(1, abs=1e-5)


def test_a_head_is_computed_once() -> None:
    tree = grow_scoring_tree([1, 2], [(3, 4), (3, 4), ()], [(5, 6), (7, 6), (8, 6)])
    assert tree.input_ids == [1, 2, 3, 4, 5, 7, 8]
    assert tree.position_ids == [0, 1, 2, 3, 4, 4, 2]
    assert tree.branch_ids == [0, 0, 1, 1, 2, 3, 4]
    assert tree.stem_ids == [0, 0, 1, 1, 1, 1, 4]
    assert tree.scored == [[(3, 5), (4, 6)], [(3, 7), (5, 6)], [(1, 8), (6, 6)]]


def test_scoring_and_writing_share_one_worker(loaded: Student, sessions: list[Session]) -> None:
    lm = engine_lm(StudentEngine(loaded))
    lm.cache = False
    scorer = scorer_of(lm)
    known = scorer(build_messages(sessions[0]), WANTED)

    def ask(number: int) -> Any:
        if number % 2:
            return scorer(build_messages(sessions[0]), WANTED)
        return BundleGenerator()(session=sessions[0]).raw

    with dspy.context(lm=lm):
        found = call_all(ask, range(12), num_threads=6)
    assert len(set(found[::2])) == 1
    for scored in found[1::2]:
        assert scored.tokens == known.tokens
        for mine, other in zip(scored.likelihoods, known.likelihoods, strict=True):
            assert mine.total == pytest.approx(other.total, abs=1e-5)
    lm.engine.close()


def test_nothing_to_score(scorer: Scorer, sessions: list[Session]) -> None:
    assert scorer(build_messages(sessions[0]), []) == likelihoods.Scored((), 0)


def test_other_language_models_tell_no_likelihoods() -> None:
    lm, _ = scripted_lm(lambda messages: "none")
    with pytest.raises(SettingError, match=r"'local/scripted' tells no likelihoods of given text"):
        scorer_of(lm)
    assert Likelihood(-6.0, 3).mean == -2
