"""Students of many families train and answer as in plain transformers, or are refused."""

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from routedk.adapters.engine.generator import Generator
from routedk.adapters.engine.grammar import joined
from routedk.adapters.engine.writing import Writing
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.student import Student, load_student, load_tokenizer
from routedk.adapters.train import TrainConfig
from routedk.adapters.training.examples import TrainingRow, training_rows
from routedk.adapters.training.objectives import AnswerLoss
from routedk.adapters.training.rows import RowCollator, prepare
from routedk.adapters.training.stage import expert_stage
from routedk.errors import StudentError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session
from tests.adapters.conftest import randomise
from tests.adapters.engine.conftest import texts, writing
from tests.adapters.families import (
    FAMILIES,
    REFUSED,
    sentence_pieces,
    tiny,
)

STAGE = expert_stage(TrainConfig(bf16=False), first=True)


@pytest.fixture(scope="module")
def loaded_tokenizer(student_folder: Path) -> Any:
    return load_tokenizer(student_folder)


Make = Callable[..., RoutedStudent]


@pytest.fixture(params=FAMILIES)
def make(request: pytest.FixtureRequest, loaded_tokenizer: Any) -> Make:
    """Makes random experts on the upper two of four random layers, in float64, of a family."""

    def build(**settings: Any) -> RoutedStudent:
        tokenizer = loaded_tokenizer
        model = tiny(request.param, len(tokenizer), **FAMILIES[request.param]).double()
        shape = ExpertSettings(r=4, lora_alpha=8, layers=2, experts=("base",), **settings)
        routed = RoutedStudent(Student(model, tokenizer, request.param, "0"), shape, "uniform")
        return randomise(routed)

    return build


@pytest.fixture
def rows(loaded_tokenizer: Any, sessions: list[Session], knowledge: KnowledgeBase) -> Any:
    return rows_of(loaded_tokenizer, sessions, knowledge, "item-intents")


def rows_of(
    tokenizer: Any, sessions: list[Session], knowledge: KnowledgeBase, form: Any
) -> list[TrainingRow]:
    thoughts = {thought.session_id: thought.text for thought in knowledge.thoughts}
    lessons = [(session, thoughts[session.id]) for session in sessions[:4]]
    return training_rows(tokenizer, lessons, CompiledKnowledge(), "base", form)


def plain_loss(model: Any, rows: Sequence[TrainingRow]) -> Tensor:
    """The mean loss of all labels, each line in a row of its own, by the model's own loss."""
    losses, counts = [], []
    for row in rows:
        for line, given in row.lines:
            ids = torch.tensor([[*row.prompt.ids, *line]])
            labels = ids.clone()
            labels[:, : len(row.prompt.ids) + given] = -100
            counts.append(len(line) - given)
            losses.append(model(input_ids=ids, labels=labels, use_cache=False).loss * counts[-1])
    return torch.stack(losses).sum() / sum(counts)


def test_the_loss_and_its_gradients_are_those_of_plain_transformers(
    make: Make, rows: list[TrainingRow]
) -> None:
    """Of a batch of rows of unequal length: lower layers kept, lines packed as trees."""
    routed = make()
    routed.train_experts()
    objective = AnswerLoss(routed, STAGE)
    prepared = prepare(routed, rows, STAGE)
    batch = RowCollator(prepared)([{"row": place} for place in range(len(rows))])
    found = objective(batch=batch)
    found.backward()
    routed.gate_state.gates = routed.gate_state.starts = None
    gradients = {name: weight.grad.clone() for name, weight in objective.trained.items()}
    objective.zero_grad()
    wanted = plain_loss(routed.model, rows)
    wanted.backward()
    assert found.item() == pytest.approx(wanted.item(), abs=1e-4)
    for name, weight in objective.trained.items():
        assert bool(weight.grad.any()), name
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-5)


def generated(routed: RoutedStudent, generator: Generator, job: Writing) -> list[list[int]]:
    """The lines of a job by the model's own `generate`, each from the prompt and its head."""
    known, model = generator.token_filter, routed.student.model

    def text(tokens: list[int]) -> str:
        return reduce(joined, (known.texts[token] for token in tokens), "")

    def write(start: list[int]) -> list[int]:
        def allowed(_: int, ids: Tensor) -> list[int]:
            written = text(ids[len(start) :].tolist())
            return (known.penalty(job.grammar, written) == 0).nonzero()[:, 0].tolist()

        ids: Tensor = model.generate(
            torch.tensor([start]),
            attention_mask=torch.ones(1, len(start), dtype=torch.long),
            max_new_tokens=job.limit + 8,
            do_sample=False,
            eos_token_id=known.end,
            pad_token_id=known.end,
            prefix_allowed_tokens_fn=allowed if job.grammar else None,
        )
        tokens: list[int] = ids[0, len(start) :].tolist()
        # A line that is not whole at its limit is finished.
        ends = range(job.limit, len(tokens))
        whole = (n for n in ends if not job.grammar or job.grammar.complete(text(tokens[:n])))
        return tokens[: next(whole, len(tokens))]

    return [write([*job.prompt.ids, *head]) for head in job.heads]


def test_answers_are_those_of_generate(make: Make, sessions: list[Session]) -> None:
    """Alone, in a batch of prompts of other lengths, and behind a shared prefix."""
    routed = make()
    routed.freeze()
    tokenizer = routed.tokenizer
    jobs = [writing(tokenizer, sessions[0]), writing(tokenizer, sessions[5], "text")]
    jobs.append(writing(tokenizer, sessions[1]))
    together = Generator(routed)
    wanted = [generated(routed, together, job) for job in jobs]
    alone = [texts(Generator(routed), [job])[0] for job in jobs]
    for found in (alone, texts(together, jobs), texts(together, jobs)):
        assert [[list(line) for line in lines] for lines in found] == wanted
    assert together.prefixes.find(jobs[0].prompt.ids, lambda ids: None).ids


def test_experts_that_begin_with_the_session(make: Make, sessions: list[Session]) -> None:
    """Answers are the same alone, in a batch and behind the prefix that all share."""
    routed = make(experts_from="session")
    routed.freeze()
    jobs = [writing(routed.tokenizer, session) for session in sessions[:2]]
    together = Generator(routed)
    first = texts(together, jobs)
    assert texts(together, jobs) == first
    assert [texts(Generator(routed), [job])[0] for job in jobs] == first


@pytest.mark.parametrize("family", REFUSED)
def test_refusals(family: str, tmp_path: Path, student_folder: Path) -> None:
    changes, why = REFUSED[family]
    model = tiny(family, 430, **changes)
    model.save_pretrained(tmp_path)
    load_tokenizer(student_folder).save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=f"a {type(model).__name__} has .*{why[4:]}.*use a stu"):
        load_student(str(tmp_path), device="cpu")


@pytest.mark.parametrize("form", ["item-intents", "bundles", "bundle-intent"])
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_what_is_learned_may_be_written(
    kind: str,
    form: str,
    student_folder: Path,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    tmp_path: Path,
) -> None:
    """Each token of a training row is one that its grammar lets through at that place."""
    folder = student_folder
    if kind == "pieces":
        folder = tmp_path
        sentence_pieces().save_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    model = tiny("Llama", len(tokenizer))
    generator = Generator(Student(model, tokenizer, "tiny", "0"))
    known = generator.token_filter
    rows = rows_of(tokenizer, sessions, knowledge, form)
    assert rows
    for row, session in zip(rows, sessions, strict=False):
        grammar = writing(tokenizer, session, form.replace("bundle-intent", "item-intents")).grammar
        for line, given in row.lines:
            text = ""
            for token in line[given:]:
                assert known.penalty(grammar, text)[token] == 0, (text, known.texts[token])
                text = joined(text, known.texts[token])
