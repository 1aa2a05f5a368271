"""What a batch writes, against the student's plain forward passes and ``generate``."""

from pathlib import Path
from typing import Any

import pytest
import torch

from routedk.adapters.engine import generator as generator_module
from routedk.adapters.engine import writing as writing_module
from routedk.adapters.engine.generator import Generator
from routedk.adapters.engine.grammar import joined
from routedk.adapters.engine.trees import TreeBatch
from routedk.adapters.student import Student
from routedk.types import Session
from tests.adapters.conftest import copy_of
from tests.adapters.engine.conftest import FORMS, routed_of, texts, writing


@pytest.fixture(scope="module", params=["plain", "softmax", "layerwise", "sparsegen"])
def generator(request: pytest.FixtureRequest, loaded: Student) -> Generator:
    return Generator(loaded if request.param == "plain" else routed_of(loaded, request.param))


def test_jobs_of_all_kinds_share_a_batch(generator: Generator, sessions: list[Session]) -> None:
    jobs = [
        writing(generator.tokenizer, session, form, temperature=float(k % 2), seed=k)
        for session in sessions[::2]
        for k, form in enumerate([*FORMS, "text", "bundles", "item-intents"])
    ]
    assert texts(generator, jobs) == [texts(generator, [job])[0] for job in jobs]


def test_free_text_is_what_generate_writes(loaded: Student, sessions: list[Session]) -> None:
    jobs = [writing(loaded.tokenizer, session, "text", limit=12) for session in sessions]
    for job, (found,) in zip(jobs, texts(Generator(loaded), jobs), strict=True):
        ids = torch.tensor([job.prompt.ids])
        whole = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
        assert found == tuple(whole[0, ids.shape[1] :].tolist())


def test_lines_against_plain_forward_passes(generator: Generator, sessions: list[Session]) -> None:
    """The student with its gates set, without cache, batch or tree."""
    job = writing(generator.tokenizer, sessions[3])
    tree_lines = generator.write([job])
    gating: Any = generator.prepare([generator_module.Tree(0, job.prompt, job.heads)])
    for head, found in zip(job.heads, tree_lines[0], strict=True):
        assert job.grammar is not None
        written: list[int] = []
        text = ""
        while generator.token_filter.end not in written and (
            len(written) < job.limit or not job.grammar.complete(text)
        ):
            ids = torch.tensor([[*job.prompt.ids, *head, *written]])
            with torch.no_grad(), gating([0]):
                scores = generator.base.model(ids).logits[0, -1]
            token = int((scores + generator.token_filter.penalty(job.grammar, text)).argmax())
            written.append(token)
            text = joined(text, generator.token_filter.texts[token])
        assert found.tokens == written
        assert found.text == text


def test_one_prompt_is_read_once_for_all_its_completions(
    loaded: Student, sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = TreeBatch.read

    def counted(self: TreeBatch, nodes: Any, *wanted: Any) -> Any:
        read.append(sum(map(len, nodes)))
        return whole(self, nodes, *wanted)

    monkeypatch.setattr(TreeBatch, "read", counted)
    generator = Generator(loaded)
    jobs = [writing(loaded.tokenizer, sessions[3], temperature=1.0, seed=seed) for seed in range(8)]
    found = texts(generator, jobs)
    assert read[0] == len(jobs[0].prompt.ids) + sum(map(len, jobs[0].heads))
    assert all(tokens <= 8 * len(jobs[0].heads) for tokens in read[1:])
    assert len({str(lines) for lines in found}) == 8


@pytest.mark.parametrize("form", ["bundles", "item-intents"])
def test_a_seed_repeats_a_sample(generator: Generator, sessions: list[Session], form: str) -> None:
    def sample(seed: int | None, top_p: float = 1.0) -> str:
        kwargs: Any = {"temperature": 1.5, "seed": seed, "top_p": top_p}
        jobs = [writing(generator.tokenizer, session, form, **kwargs) for session in sessions[:3]]
        return str(texts(generator, jobs))

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in (1, 2, 3)}) == 3
    assert len({sample(None) for _ in range(6)}) > 1
    greedy = str(texts(generator, [writing(generator.tokenizer, s, form) for s in sessions[:3]]))
    assert sample(1, top_p=1e-6) == greedy


@pytest.mark.parametrize(
    ("fusion", "experts_from", "shared"),
    [
        ("plain", "start", True),
        ("softmax", "start", False),
        ("softmax", "session", True),
        ("layerwise", "session", True),
        ("single:rule", "start", True),
        ("static", "start", True),
        ("sparsegen", "start", True),
        ("sparsegen", "session", True),
    ],
)
def test_a_kept_prefix_changes_nothing(
    loaded: Student, sessions: list[Session], fusion: str, experts_from: str, shared: bool
) -> None:
    def fresh() -> Generator:
        if fusion == "plain":
            return Generator(loaded)
        return Generator(routed_of(loaded, fusion, experts_from))

    jobs = [writing(loaded.tokenizer, session) for session in sessions]
    alone = [texts(fresh(), [job])[0] for job in jobs]
    kept = fresh()
    assert [texts(kept, [job])[0] for job in jobs] == alone
    assert texts(kept, jobs) == alone
    assert texts(fresh(), jobs) == alone
    assert bool(kept.prefixes._entries) == shared
    assert {len(entry.ids) for entry in kept.prefixes._entries} <= {jobs[0].prompt.span[0]}


def test_gates_are_each_rows_own(loaded: Student, sessions: list[Session]) -> None:
    answers = {}
    jobs = [writing(loaded.tokenizer, session, "text") for session in sessions]
    for fusion in ("single:base", "single:rule", "uniform"):
        routed = routed_of(loaded, fusion)
        answers[fusion] = str(texts(Generator(routed), jobs))
        assert routed.gate_state.gates is None, "no gates stay behind"
    assert len(set(answers.values())) == 3


def test_a_cancelled_job_is_written_no_further(loaded: Student, sessions: list[Session]) -> None:
    generator = Generator(copy_of(loaded))
    jobs = [writing(loaded.tokenizer, session, "text", limit=30) for session in sessions[:2]]
    alone = texts(generator, jobs[1:])

    def cancel(*args: Any) -> None:
        jobs[0].future.cancel()

    generator.base.model.lm_head.register_forward_hook(cancel)
    cancelled, other = texts(generator, jobs)
    assert len(cancelled[0]) == 1
    assert [other] == alone


def test_every_answer_of_random_students_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    from benchmarks import validity

    counts = validity.run(200)
    assert counts["valid"] == 200, counts
    assert counts["of them no bundle"] > 0


def test_scores_that_are_not_finite_are_no_endless_answer(
    loaded: Student, sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_module, "_OVERTIME", 5)
    broken = copy_of(loaded)
    broken.model.model.norm.weight.fill_(torch.nan)
    job = writing(broken.tokenizer, sessions[0])
    lengths = {len(line) for line in texts(Generator(broken), [job])[0]}
    assert lengths <= {*range(job.limit + 6)}
