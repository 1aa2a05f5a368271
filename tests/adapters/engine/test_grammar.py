import random
from typing import Any

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
from routedk.adapters.prompts import end_of_turn
from routedk.adapters.student import Student, find_student, load_tokenizer
from routedk.programs.prompting.answers import read_answer
from routedk.programs.prompting.item_intents import (
    ITEM_INTENT_CHARACTERS,
    clean_intent,
    split_intents,
)
from routedk.programs.prompting.layout import render_answer
from routedk.types import Bundle, Session
from tests.adapters.conftest import make_session
from tests.languages import LANGUAGES


@pytest.fixture(scope="module")
def token_filter(loaded: Student) -> TokenFilter:
    end = loaded.tokenizer.eos_token_id
    return TokenFilter(loaded.tokenizer, loaded.model.config.vocab_size, end)


# Bytes of characters that are not whole.
PARTS = "".join(map(chr, range(0xDC80, 0xDD00)))


def cut(text: bytes) -> str:
    """Text under way that may end within a character."""
    return text.decode(errors="surrogateescape")


@pytest.fixture(scope="module", params=["tiny", pytest.param("smollm2", marks=pytest.mark.student)])
def tokenizer(request: pytest.FixtureRequest, loaded: Student) -> Any:
    """A byte-level tokenizer: to the tiny one each byte of other scripts is a token."""
    return loaded.tokenizer if request.param == "tiny" else load_tokenizer(find_student())


@pytest.fixture(scope="module")
def any_filter(tokenizer: Any) -> TokenFilter:
    return TokenFilter(tokenizer, len(tokenizer), end_of_turn(tokenizer))


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


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_intent_in_any_language_can_be_written(
    tokenizer: Any, any_filter: TokenFilter, language: str
) -> None:
    """Token by token, and it may end only where its last character is whole."""
    grammars: tuple[tuple[Grammar, str], ...] = ((ItemIntent(), ""), (BundleList(3), "1 2 |"))
    for intent in (*map(clean_intent, LANGUAGES[language].intents), "1½ quart", "2 m²"):
        for grammar, before in grammars:
            written = before
            for token in tokenizer(f" {intent}", add_special_tokens=False)["input_ids"]:
                tokens = allowed(any_filter, grammar, written)
                assert token in tokens, (intent, written)
                whole = written == written.rstrip(PARTS) and written.strip() != before
                assert (any_filter.end in tokens) == whole
                written = joined(written, any_filter.texts[token])
            assert written == f"{before} {intent}"
            assert any_filter.end in allowed(any_filter, grammar, written)


@pytest.mark.parametrize("part", [b"\xe5", b"\xe5\x92", b"\xf0\x9f", b"\xd0", b"\xc3"])
@pytest.mark.parametrize(("grammar", "before"), [(ItemIntent(), " a"), (BundleList(3), "1 2 | a")])
def test_a_character_that_is_begun_is_finished(
    any_filter: TokenFilter, grammar: Grammar, before: str, part: bytes
) -> None:
    begun = cut(part)
    tokens = allowed(any_filter, grammar, before + begun)
    assert tokens
    assert not grammar.complete(before + begun)
    for token in tokens:
        after = joined(before + begun, any_filter.texts[token])
        whole = after.rstrip(PARTS)
        assert whole.isprintable()
        assert len(whole) > len(before) or after.startswith(before + begun)
        assert whole == after or any(
            joined(after, later).rstrip(PARTS) == joined(after, later)
            for later in any_filter.texts
            if later[:1] in PARTS
        )


@pytest.mark.parametrize("part", [b"\x80", b"\xc0", b"\xed\xa0", b"\xee", b"\xff", b"\xef\xbf\xbd"])
def test_bytes_of_no_printable_character_are_never_begun(
    any_filter: TokenFilter, part: bytes
) -> None:
    assert not ItemIntent().begins(" a" + cut(part))
    written, last = " a" + cut(part[:-1]), cut(part[-1:])
    assert not any(
        any_filter.texts[token].startswith(last)
        for token in allowed(any_filter, ItemIntent(), written)
    )


def test_the_last_character_may_have_four_bytes(any_filter: TokenFilter) -> None:
    written = " " + "x" * (ITEM_INTENT_CHARACTERS - 2)
    for byte in "📷".encode().decode("ascii", "surrogateescape"):
        assert any_filter.texts.index(byte) in allowed(any_filter, ItemIntent(), written)
        written = joined(written, byte)
    assert allowed(any_filter, ItemIntent(), written) == [any_filter.end]


def test_without_all_bytes_no_character_is_begun(loaded: Student) -> None:
    """The vocabulary ends before the last of the bytes that continue a character."""
    tokenizer = loaded.tokenizer
    size = tokenizer.convert_tokens_to_ids("Ń")
    short = TokenFilter(tokenizer, size, end_of_turn(tokenizer))
    assert not any(set(PARTS) & set(text) for text in short.texts)
    assert len(allowed(short, ItemIntent(), " a")) > 90
