from typing import Any

import pytest
import torch

from routedk.adapters.engine.generation import Generator, Sampling
from routedk.adapters.engine.grammars import LabelGrammar
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.prompts import EncodedPrompt, encode_prompt
from routedk.adapters.student import Student
from routedk.adapters.training.examples import encode_head
from routedk.programs.prompting.layout import build_messages, render_items
from routedk.types import Session

from .conftest import copy_of, randomise


@pytest.fixture(scope="module", params=["plain", "softmax", "single:rule"])
def generator(request: pytest.FixtureRequest, loaded: Student) -> Generator:
    if request.param == "plain":
        return Generator(loaded)
    routed = randomise(RoutedStudent(copy_of(loaded)))
    if request.param != "softmax":
        routed.use_fusion(request.param)
    routed.freeze()
    return Generator(routed)


@pytest.fixture
def prompts(loaded: Student, sessions: list[Session]) -> list[EncodedPrompt]:
    return [
        encode_prompt(loaded.tokenizer, build_messages(session), render_items(session).split("\n"))
        for session in sessions
    ]


@pytest.fixture
def items(sessions: list[Session]) -> list[list[str]]:
    return [render_items(session).split("\n") for session in sessions]


def test_bundles_of_many_equal_one_by_one(
    generator: Generator, prompts: list[EncodedPrompt], sessions: list[Session]
) -> None:
    sizes = [len(session.items) for session in sessions]
    assert len(set(sizes)) > 2
    together = generator.bundles(prompts, sizes)
    alone = [generator.bundles([p], [n])[0] for p, n in zip(prompts, sizes, strict=True)]
    assert together == alone
    assert len({answer.text for answer in together}) > 1


def test_item_lines_of_many_equal_one_by_one(
    generator: Generator, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    together = generator.item_lines(prompts, items)
    alone = [generator.item_lines([p], [i])[0] for p, i in zip(prompts, items, strict=True)]
    assert together == alone
    assert len({line.text for lines in together for (line,) in lines}) > 3


def test_free_text_of_many_equals_one_by_one(
    generator: Generator, prompts: list[EncodedPrompt]
) -> None:
    limits = [5, 9, 3, 7, 9, 1]
    together = generator.complete(prompts, [None] * 6, limits)
    alone = [generator.complete([p], [None], [n])[0] for p, n in zip(prompts, limits, strict=True)]
    assert together == alone
    assert all(answer.tokens <= limit for answer, limit in zip(together, limits, strict=True))


def test_a_shared_prompt_equals_the_whole_prompt_for_each_line(
    generator: Generator, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    """Keys and values computed once against full prompts, one line at a time."""
    shared = generator.item_lines(prompts, items)
    for prompt, lines, found in zip(prompts, items, shared, strict=True):
        for line, (answer,) in zip(lines, found, strict=True):
            head = encode_head(generator.tokenizer, line)
            # Gates come from the prompt alone, so the head must not move the session's span.
            full = EncodedPrompt(prompt.ids + head, prompt.span)
            assert generator.complete([full], [LabelGrammar()], [12])[0] == answer


def test_greedy_lines_against_plain_forward_passes(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    """Against the student itself, without cache, generate or padding."""
    generator = Generator(loaded)
    prompt, line = prompts[3], items[3][1]
    ids = [*prompt.ids, *encode_head(loaded.tokenizer, line)]
    grammar: Any = LabelGrammar()
    written: list[int] = []
    while len(written) < 12:
        with torch.no_grad():
            scores = loaded.model(torch.tensor([ids + written])).logits[0, -1]
        scores[~generator.token_filter.allowed(grammar)] = -torch.inf
        written.append(int(scores.argmax()))
        if written[-1] == generator.end:
            break
        grammar = grammar.feed(generator.token_filter.texts[written[-1]])
    (found,) = generator.item_lines([prompt], [items[3]])[0][1]
    assert found.tokens == len(written)
    assert found.text == loaded.tokenizer.decode(written, skip_special_tokens=True)


def test_readings_begin_differently_and_the_likeliest_comes_first(
    generator: Generator, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    one = generator.item_lines(prompts, items)
    three = generator.item_lines(prompts, items, readings=3)
    pairs = zip(prompts, items, strict=True)
    alone = [generator.item_lines([p], [i], readings=3)[0] for p, i in pairs]
    assert three == alone
    for single, several in zip(one, three, strict=True):
        for (greedy,), readings in zip(single, several, strict=True):
            assert len(readings) == 3
            assert greedy in readings
            assert len({reading.text for reading in readings}) > 1


def test_gates_matter(loaded: Student, prompts: list[EncodedPrompt]) -> None:
    routed = randomise(RoutedStudent(copy_of(loaded)))
    answers = {}
    for fusion in ("single:base", "single:rule", "uniform"):
        routed.use_fusion(fusion)
        texts = Generator(routed).complete(prompts, [None] * 6, [8] * 6)
        answers[fusion] = tuple(answer.text for answer in texts)
    assert len(set(answers.values())) == 3


def test_no_gates_stay_behind(generator: Generator, prompts: list[EncodedPrompt]) -> None:
    generator.bundles(prompts[:1], [2])
    if generator.routed is not None:
        assert generator.routed.gate_state.gates is None


def test_a_seed_repeats_a_draw(generator: Generator, prompts: list[EncodedPrompt]) -> None:
    def draw(seed: int) -> list[str]:
        sampling = Sampling(temperature=1.5, seed=seed)
        return [a.text for a in generator.bundles(prompts[:2], [6, 6], sampling)]

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(4)}) > 1
