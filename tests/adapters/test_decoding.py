import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routedk.adapters.engine.decoding import ConstrainedLogits, TokenFilter
from routedk.adapters.engine.generation import Generator, Sampling
from routedk.adapters.engine.grammars import (
    INTENT_CHARACTERS,
    THOUGHT_CHARACTERS,
    AnswerGrammar,
    Grammar,
    LabelGrammar,
)
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import Student
from routedk.programs.prompting.answers import read_answer
from routedk.programs.prompting.item_intents import ITEM_INTENT_CHARACTERS, split_intents
from routedk.programs.prompting.layout import build_messages, render_answer, render_items
from routedk.types import Bundle, Session

from .conftest import make_session


@pytest.fixture(scope="module")
def token_filter(loaded: Student) -> TokenFilter:
    end = loaded.tokenizer.eos_token_id
    return TokenFilter(loaded.tokenizer, loaded.model.config.vocab_size, end)


def follow(grammar: Grammar, text: str) -> Grammar | None:
    state: Grammar | None = grammar
    for character in text:
        state = state.feed(character) if state is not None else None
    return state


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "1 2",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "1 12 | tea for two",
        "1 2\n1 3",
        "10 11 | a\n1 2 | b\n1 2 3 | it's 50% off, (really)",
        "1 2 | " + "x" * INTENT_CHARACTERS,
    ],
)
def test_answers(text: str) -> None:
    state = follow(AnswerGrammar(12), text)
    assert state is not None
    assert state.complete
    assert AnswerGrammar(12).feed(text) == state


@pytest.mark.parametrize(
    "text", ["", "non", "1", "1 ", "1 2 ", "1 2 |", "1 2 | ", "1 2\n", "1 2\n3"]
)
def test_beginnings_of_answers(text: str) -> None:
    state = AnswerGrammar(12).feed(text)
    assert state is not None
    assert not state.complete


@pytest.mark.parametrize(
    "text",
    [
        "13",
        "0",
        "01",
        "1 13",
        "1 1 ",
        "2 1 ",
        "12 ",
        "12\n",
        "1\n",
        "1 |",
        "1  2",
        " 1 2",
        "1 2|",
        "1 2 |x",
        "1 2 |  x",
        "1 2 | a|b",
        "1 2 | a\tb",
        "1 2 | " + "x" * (INTENT_CHARACTERS + 1),
        "1 2\n1 2\n",
        "1 2\n1 2 |",
        "1 2 | a\n1 2 | b",
        "1 2\nnone",
        "none\n1 2",
        "nonee",
        "None",
        "nothing",
        "\n",
        "1 ٢",
        "1 2\n\n",
        "1 2 \n",
    ],
)
def test_what_is_no_answer(text: str) -> None:
    assert AnswerGrammar(12).feed(text) is None


@pytest.mark.parametrize(
    "text", ["Thought: 1 tea; 2 tea\n1 2 | tea", "Thought: why\nnone", "1 2", "none"]
)
def test_answers_with_a_thought(text: str) -> None:
    state = follow(AnswerGrammar(12, thinks=True), text)
    assert state is not None
    assert state.complete
    assert (follow(AnswerGrammar(12), text) is None) == text.startswith("T")


@pytest.mark.parametrize(
    "text",
    [
        "thought: a",
        "Thought; a",
        "Thought:a",
        "Thought:  a",
        "Thought: \n",
        "Thought: a|b",
        "Thought: a\nThought: b",
        "1 2\nThought: a",
        "none:",
        ":",
        "Thought: " + "x" * 3 * THOUGHT_CHARACTERS,
    ],
)
def test_what_is_no_thought(text: str) -> None:
    assert AnswerGrammar(3, thinks=True).feed(text) is None


def test_a_thought_is_no_answer_yet() -> None:
    for text in ("Thought:", "Thought: 1 a; 2 a", "Thought: a\n", "Thought: a\n1"):
        state = AnswerGrammar(3, thinks=True).feed(text)
        assert state is not None
        assert not state.complete


def test_a_long_thought_goes_on_with_the_answer(token_filter: TokenFilter) -> None:
    full = AnswerGrammar(2, thinks=True).feed("Thought: " + "x" * (2 * THOUGHT_CHARACTERS - 1))
    assert full is not None
    tokens = token_filter.allowed(full).nonzero()[:, 0].tolist()
    assert tokens
    assert all(token_filter.texts[token].startswith("\n") for token in tokens)


def test_small_sessions() -> None:
    assert AnswerGrammar(1).feed("1") is None
    assert AnswerGrammar(1).feed("none") is not None
    two = AnswerGrammar(2).feed("1 2")
    assert two is not None
    assert two.complete
    assert two.feed("\n") is None, "two items have one bundle"
    assert AnswerGrammar(2).feed("2") is None


def test_every_bundle_of_three_items_once() -> None:
    grammar = AnswerGrammar(3).feed("2 3\n1 3\n1 2\n")
    assert grammar is not None
    assert grammar.feed("1 2 3") is not None
    assert grammar.feed("1 2 3\n") is None
    assert grammar.feed("1 3") is None, "nothing new begins with 1 3"
    assert grammar.feed("2") is None, "nothing new begins with 2"


def test_lines_at_most() -> None:
    assert AnswerGrammar(12, max_bundles=2).feed("1 2\n1 3") is not None
    assert AnswerGrammar(12, max_bundles=2).feed("1 2\n1 3\n") is None


LIMIT = 50


def check(text: str, session: Session) -> None:
    """The answer is read as it is written, with nothing dropped."""
    parsed = read_answer(text, session)
    assert parsed.dropped == ()
    stated = text.partition("\n")[2] if text.startswith("Thought:") else text
    assert parsed.none == (stated == "none")
    lines = [] if parsed.none else stated.split("\n")
    assert len(parsed.bundles) == len(lines)
    assert len({bundle.items for bundle in parsed.bundles}) == len(lines)
    for line, bundle in zip(lines, parsed.bundles, strict=True):
        numbers = list(map(int, line.split("|")[0].split()))
        assert [session.number(item_id) for item_id in bundle.item_ids] == numbers


def session_of(num_items: int) -> Session:
    return make_session("s", [f"item {k}" for k in range(num_items)], [])


@settings(max_examples=200, deadline=None)
@given(
    num_items=st.integers(1, 12),
    max_bundles=st.integers(1, 6),
    thinks=st.booleans(),
    choose=st.randoms(),
)
def test_random_walks_end_in_answers(
    token_filter: TokenFilter,
    num_items: int,
    max_bundles: int,
    thinks: bool,
    choose: random.Random,
) -> None:
    """Whatever allowed tokens are taken, the text goes on, or is an answer and may end."""
    grammar = AnswerGrammar(num_items, max_bundles, thinks=thinks)
    session = session_of(num_items)
    written = ""
    for _ in range(150):
        mask = token_filter.allowed(grammar)
        tokens = mask.nonzero()[:, 0].tolist()
        assert tokens, f"dead end after {written!r}"
        assert bool(mask[token_filter.end]) == grammar.complete
        if grammar.complete:
            check(written, session)
        token = choose.choice(tokens)
        if token == token_filter.end:
            return
        written += token_filter.texts[token]
        after = grammar.feed(token_filter.texts[token])
        assert after is not None
        grammar = after


@settings(max_examples=100, deadline=None)
@given(choose=st.randoms())
def test_random_labels(token_filter: TokenFilter, choose: random.Random) -> None:
    grammar: LabelGrammar = LabelGrammar()
    for _ in range(ITEM_INTENT_CHARACTERS + 1):
        tokens = token_filter.allowed(grammar).nonzero()[:, 0].tolist()
        assert tokens, f"dead end after {grammar.written!r}"
        if grammar.complete:
            assert grammar.written == " " + grammar.written.lstrip()
            assert len(grammar.written) <= ITEM_INTENT_CHARACTERS
            assert ";" not in grammar.written
            assert "\n" not in grammar.written
        token = choose.choice(tokens)
        if token == token_filter.end:
            assert split_intents(grammar.written) is not None
            return
        after = grammar.feed(token_filter.texts[token])
        assert after is not None
        grammar = after
    raise AssertionError("a label has an end")


@settings(max_examples=200, deadline=None)
@given(data=st.data(), num_items=st.integers(2, 12))
def test_gold_answers_can_be_written(
    token_filter: TokenFilter, data: st.DataObject, num_items: int
) -> None:
    """The grammar lets through what the layout renders, token by token."""
    session = session_of(num_items)
    ids = [item.id for item in session.items]
    drawn = data.draw(
        st.lists(st.sets(st.sampled_from(ids), min_size=2), max_size=6, unique_by=frozenset)
    )
    intents = st.text("abc xyz", max_size=20)
    bundles = [Bundle(tuple(sorted(items)), data.draw(intents)) for items in drawn]
    text = render_answer(session, bundles)
    grammar: Grammar = AnswerGrammar(num_items)
    for token in token_filter.tokenizer(text, add_special_tokens=False)["input_ids"]:
        assert token_filter.allowed(grammar)[token], text
        after = grammar.feed(token_filter.texts[token])
        assert after is not None
        grammar = after
    assert token_filter.allowed(grammar)[token_filter.end]


def test_the_filter_agrees_with_the_grammar(token_filter: TokenFilter) -> None:
    """Over all tokens, for structure; what it forbids beyond is never structure."""
    for text in ("", "1", "1 ", "1 2", "1 2 ", "1 2 |", "1 2 | t", "1 2\n", "1 1", "n", "none"):
        grammar = AnswerGrammar(12).feed(text)
        assert grammar is not None
        mask = token_filter.allowed(grammar)
        for token, piece in enumerate(token_filter.texts):
            if token == token_filter.end:
                continue
            fits = bool(piece) and grammar.feed(piece) is not None
            assert not (mask[token] and not fits), (text, piece)
            if fits and not mask[token]:
                assert ";" in piece, (text, piece)


def test_special_tokens_are_never_text(token_filter: TokenFilter) -> None:
    special = token_filter.tokenizer.all_special_ids
    assert {token_filter.texts[token] for token in special} == {""}
    for grammar in (LabelGrammar(" tea"), AnswerGrammar(3).feed("1 2 | t")):
        assert grammar is not None
        allowed = set(token_filter.allowed(grammar).nonzero()[:, 0].tolist())
        assert allowed & set(special) == {token_filter.end}


def test_token_texts_join_to_what_is_decoded(token_filter: TokenFilter) -> None:
    ids = token_filter.tokenizer("1 2 | brewing tea, at home", add_special_tokens=False)[
        "input_ids"
    ]
    assert "".join(token_filter.texts[k] for k in ids) == "1 2 | brewing tea, at home"


def test_rows_without_a_grammar_are_free(token_filter: TokenFilter) -> None:
    processor = ConstrainedLogits(token_filter, [None, AnswerGrammar(1)])
    scores = torch.zeros(2, token_filter.vocab_size)
    masked = processor(torch.tensor([[5], [6]]), scores)
    assert torch.equal(masked[0], scores[0])
    assert torch.isinf(masked[1]).any()
    assert not scores.any(), "the scores handed in are not changed"


def test_two_thousand_random_answers(loaded: Student) -> None:
    """A student of random weights, sampled hot, writes nothing but answers of its session."""
    generator = Generator(loaded)
    made = 0
    finished = 0
    for seed in range(4):
        torch.manual_seed(seed)
        sizes = [1 + k % 12 for k in range(500)]
        chosen = [session_of(size) for size in sizes]
        prompt = encode_prompt(
            loaded.tokenizer, build_messages(chosen[1]), render_items(chosen[1]).split("\n")
        )
        short = type(prompt)(prompt.ids[-6:], (0, 6))
        hot = Sampling(temperature=2.0 if seed % 2 else 0.8)
        grammars = [AnswerGrammar(size) for size in sizes]
        answers = generator.complete([short] * 500, grammars, [LIMIT] * 500, hot)
        for session, answer in zip(chosen, answers, strict=True):
            made += 1
            if not answer.finished:
                assert answer.tokens == LIMIT
                continue
            finished += 1
            check(answer.text, session)
    assert made == 2000
    assert finished > 1000
