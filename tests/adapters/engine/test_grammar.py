import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routedk.adapters.engine.grammar import (
    INTENT_CHARACTERS,
    MAX_BUNDLES,
    THOUGHT_CHARACTERS,
    BundleList,
    Grammar,
    ItemIntent,
    TokenFilter,
    joined,
)
from routedk.adapters.student import Student
from routedk.programs.prompting.answers import read_answer
from routedk.programs.prompting.item_intents import (
    ITEM_INTENT_CHARACTERS,
    split_intents,
)
from routedk.programs.prompting.layout import render_answer
from routedk.types import Bundle, Session
from tests.adapters.conftest import make_session


@pytest.fixture(scope="module")
def token_filter(loaded: Student) -> TokenFilter:
    end = loaded.tokenizer.eos_token_id
    return TokenFilter(loaded.tokenizer, loaded.model.config.vocab_size, end)


# Bytes of characters that are not whole.
PARTS = "".join(map(chr, range(0xDC80, 0xDD00)))


def cut(text: bytes) -> str:
    """Text under way that may end within a character."""
    return text.decode(errors="surrogateescape")


def allowed(token_filter: TokenFilter, grammar: Grammar, text: str) -> list[int]:
    return (token_filter.penalty(grammar, text) == 0).nonzero()[:, 0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "text",
    [
        "13",
        "0",
        "1 13",
        "1 1 ",
        "2 1 ",
        "12 ",
        "1 |",
        "1  2",
        "1 2|",
        "1 2 |x",
        "1 2 | a|b",
        "1 2 | \n",
        "1 2 | " + "x" * (INTENT_CHARACTERS + 1),
        "1 2\n1 2\n",
        "1 2 | a\n1 2 | b",
        "1 2\nnone",
        "none\n1 2",
        "None",
        "1 ٢",
        "1 2\n\n",
    ],
)
def test_what_is_no_answer(text: str) -> None:
    assert not BundleList(12).begins(text)


@pytest.mark.parametrize(
    "text", ["Thought: 1 tea; 2 tea\n1 2 | tea", "Thought: why\nnone", "1 2", "none"]
)
def test_answers_with_a_thought(text: str) -> None:
    grammar = BundleList(12, thinks=True)
    assert all(grammar.begins(text[:end]) for end in range(len(text) + 1))
    assert grammar.complete(text)
    assert BundleList(12).begins(text) != text.startswith("T")


@pytest.mark.parametrize(
    "text",
    [
        "thought: a",
        "Thought; a",
        "Thought:a",
        "Thought: \n",
        "Thought: a|b",
        "Thought: a\nThought: b",
        "1 2\nThought: a",
        "Thought: " + "x" * 3 * THOUGHT_CHARACTERS,
    ],
)
def test_what_is_no_thought(text: str) -> None:
    assert not BundleList(3, thinks=True).begins(text)


@pytest.mark.parametrize(
    "text",
    [
        b"1 2 | \xe5\n",
        b"1 2 | \xe5 a",
        b"1 2 | \xe5\xe5",
        b"1 2 | \x80",
        b"1 2 | \xef\xbf\xbd",
        b"1 2\xe5",
        b"Thought: \xe5\n",
        b"Thought: \xe5\n1 2",
    ],
)
def test_a_part_of_a_character_is_none(text: bytes) -> None:
    grammar = BundleList(3, thinks=True)
    assert not grammar.begins(cut(text))
    assert grammar.begins(cut(text[: text.find(b" ")]))


def test_a_thought_is_no_answer_yet() -> None:
    for text in ("Thought:", "Thought: 1 a; 2 a", "Thought: a\n", "Thought: a\n1"):
        assert BundleList(3, thinks=True).begins(text)
        assert not BundleList(3, thinks=True).complete(text)


def test_after_a_long_thought_comes_the_answer(token_filter: TokenFilter) -> None:
    text = "Thought: " + "x" * (2 * THOUGHT_CHARACTERS - 1)
    tokens = allowed(token_filter, BundleList(2, thinks=True), text)
    assert tokens
    assert all(token_filter.texts[token].startswith("\n") for token in tokens)


def test_small_sessions() -> None:
    assert not BundleList(1).begins("1")
    assert BundleList(1).begins("none")
    assert BundleList(2).complete("1 2")
    assert not BundleList(2).begins("1 2\n"), "two items have one bundle"
    assert not BundleList(2).begins("2")


def test_every_bundle_of_three_items_once() -> None:
    written = "2 3\n1 3\n1 2\n"
    assert BundleList(3).begins(f"{written}1 2 3")
    assert not BundleList(3).begins(f"{written}1 2 3\n")
    assert not BundleList(3).begins(f"{written}1 3"), "nothing new begins with 1 3"
    assert not BundleList(3).begins(f"{written}2"), "nothing new begins with 2"


def test_lines_at_most() -> None:
    lines = [f"1 {number}" for number in range(2, 3 + MAX_BUNDLES)]
    assert BundleList(12).begins("\n".join(lines[:MAX_BUNDLES]))
    assert not BundleList(12).begins("\n".join(lines[:MAX_BUNDLES]) + "\n")


def check(text: str, session: Session) -> None:
    """The answer is read as it is written, with nothing dropped."""
    read = read_answer(text, session)
    assert read.dropped == ()
    stated = text.partition("\n")[2] if text.startswith("Thought:") else text
    assert read.none == (stated == "none")
    lines = [] if read.none else stated.split("\n")
    assert len({bundle.items for bundle in read.bundles}) == len(lines)
    for line, bundle in zip(lines, read.bundles, strict=True):
        numbers = list(map(int, line.split("|")[0].split()))
        assert [session.number(item_id) for item_id in bundle.item_ids] == numbers


@settings(max_examples=60, deadline=None)
@given(num_items=st.integers(1, 12), thinks=st.booleans(), choose=st.randoms())
def test_random_walks_end_in_answers(
    token_filter: TokenFilter, num_items: int, thinks: bool, choose: random.Random
) -> None:
    """Whatever allowed tokens are taken, more may follow, or it is an answer and may end."""
    grammar = BundleList(num_items, thinks)
    session = make_session("s", [f"item {k}" for k in range(num_items)], [])
    written = ""
    for _ in range(150):
        tokens = allowed(token_filter, grammar, written)
        assert tokens, f"dead end after {written!r}"
        assert (token_filter.end in tokens) == grammar.complete(written)
        if grammar.complete(written):
            check(written, session)
        token = choose.choice(tokens)
        if token == token_filter.end:
            return
        written = joined(written, token_filter.texts[token])
        assert grammar.begins(written)


@settings(max_examples=50, deadline=None)
@given(choose=st.randoms())
def test_random_intents(token_filter: TokenFilter, choose: random.Random) -> None:
    written = ""
    for _ in range(4 * ITEM_INTENT_CHARACTERS + 1):
        tokens = allowed(token_filter, ItemIntent(), written)
        assert tokens, f"dead end after {written!r}"
        token = choose.choice(tokens)
        if token == token_filter.end:
            assert written == " " + written.strip(" ") + " " * (
                len(written) - len(written.rstrip())
            )
            assert split_intents(written) is not None
            assert written.isprintable()
            assert ";" not in written
            written.encode()
            return
        written = joined(written, token_filter.texts[token])
        assert len(written.rstrip(PARTS)) <= ITEM_INTENT_CHARACTERS
    raise AssertionError("an intent has an end")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_items=st.integers(2, 12))
def test_gold_answers_can_be_written(
    token_filter: TokenFilter, loaded: Student, data: st.DataObject, num_items: int
) -> None:
    """The grammar lets through what the layout renders, token by token."""
    session = make_session("s", [f"item {k}" for k in range(num_items)], [])
    ids = [item.id for item in session.items]
    chosen = data.draw(
        st.lists(st.sets(st.sampled_from(ids), min_size=2), max_size=6, unique_by=frozenset)
    )
    intents = st.text("abc xyz", max_size=20)
    bundles = [Bundle(tuple(sorted(items)), data.draw(intents)) for items in chosen]
    answer, written = render_answer(session, bundles), ""
    for token in loaded.tokenizer(answer, add_special_tokens=False)["input_ids"]:
        assert token in allowed(token_filter, BundleList(num_items), written), answer
        written = joined(written, token_filter.texts[token])
    assert written == answer
    assert token_filter.end in allowed(token_filter, BundleList(num_items), written)


def test_the_filter_agrees_with_the_grammar(token_filter: TokenFilter) -> None:
    """Over all tokens; what it forbids beyond is never structure."""
    texts = ("", "1", "1 ", "1 2", "1 2 ", "1 2 |", "1 2 | t", "1 2\n", "n", "none")
    for text in (*texts, cut(b"1 2 | \xe5"), cut(b"1 2 | t\xf0\x9f"), cut(b"1 2 | \xee")):
        tokens = set(allowed(token_filter, BundleList(12), text))
        for token, piece in enumerate(token_filter.texts):
            if token == token_filter.end:
                continue
            fits = bool(piece) and BundleList(12).begins(joined(text, piece))
            assert token not in tokens or fits, (text, piece)
            assert not fits or token in tokens or ";" in piece, (text, piece)


def test_special_tokens_are_never_text(token_filter: TokenFilter, loaded: Student) -> None:
    special = loaded.tokenizer.all_special_ids
    assert {token_filter.texts[token] for token in special} == {""}
    for grammar, text in ((ItemIntent(), " tea"), (BundleList(3), "1 2 | t")):
        assert set(allowed(token_filter, grammar, text)) & set(special) == {token_filter.end}
