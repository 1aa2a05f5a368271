"""The grammar in any script: a token may be part of a character."""

from typing import Any

import pytest

from routedk.adapters.engine.grammar import (
    BundleList,
    Grammar,
    ItemIntent,
    TokenFilter,
    joined,
)
from routedk.adapters.prompts import end_of_turn
from routedk.adapters.student import Student, find_student, load_tokenizer
from routedk.programs.prompting.item_intents import ITEM_INTENT_CHARACTERS, clean_intent
from tests.adapters.engine.test_grammar import PARTS, allowed, cut
from tests.languages import LANGUAGES


@pytest.fixture(scope="module", params=["tiny", pytest.param("smollm2", marks=pytest.mark.student)])
def tokenizer(request: pytest.FixtureRequest, loaded: Student) -> Any:
    """A byte-level tokenizer: to the tiny one each byte of other scripts is a token."""
    return loaded.tokenizer if request.param == "tiny" else load_tokenizer(find_student())


@pytest.fixture(scope="module")
def any_filter(tokenizer: Any) -> TokenFilter:
    return TokenFilter(tokenizer, len(tokenizer), end_of_turn(tokenizer))


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
