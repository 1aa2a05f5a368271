"""Grammars of answers, and the tokens that they allow next: every answer is valid.

A token may be part of a character. Unfinished text holds the bytes of an incomplete character as
lone surrogates, as Python's error handler ``surrogateescape`` writes them.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from routedk.programs.prompting.item_intents import ITEM_INTENT_CHARACTERS
from routedk.programs.prompting.layout import NO_BUNDLE, THOUGHT_PREFIX

INTENT_CHARACTERS = 40
THOUGHT_CHARACTERS = 40
MAX_BUNDLES = 6

_STRUCTURE = frozenset("0123456789 |\n" + NO_BUNDLE + THOUGHT_PREFIX)
_BYTES = "".join(map(chr, range(0xDC80, 0xDD00)))
# Those that continue a character in UTF-8.
_LATER_BYTES = frozenset(_BYTES[:64])


def joined(text: str, piece: str) -> str:
    """Unfinished text plus what a token adds; bytes that complete a character become it."""
    return (text + piece).encode(errors="surrogateescape").decode(errors="surrogateescape")


def _printable(text: str) -> bool:
    """Whether text is printable, or can be once its last character is complete."""
    whole = text.rstrip(_BYTES)
    return whole.isprintable() and "\ufffd" not in whole and text[len(whole) :] in _begun()


@cache
def _begun() -> frozenset[str]:
    """The beginnings of printable characters in UTF-8: nothing, or some of their bytes."""
    every = map(chr, range(0x80, sys.maxunicode + 1))
    encoded = [one.encode() for one in every if one.isprintable() and one != "\ufffd"]
    begun = {one[:end] for one in encoded for end in range(len(one))}
    return frozenset(one.decode(errors="surrogateescape") for one in begun)


def _decoded(token: str) -> str:
    """The text of a token that is bytes, written in GPT-2's byte alphabet or as ``<0xE4>``."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    named = re.fullmatch("<0x([0-9A-F]{2})>", token)
    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    written = [int(named[1], 16)] if named else [letters.get(letter, 255) for letter in token]
    return bytes(written).decode(errors="surrogateescape")


def _length(text: str) -> int:
    """The number of characters, including an incomplete one."""
    whole = text.rstrip(_BYTES)
    return len(whole) + (whole != text)


class FreeText(NamedTuple):
    """Unfinished ordinary text: one space, then anything printable.

    Args:
        text: What is written so far.
        most: Maximum characters, the space included; 0 if no text is allowed.
        entries: Whether it may hold ``;``, which separates the entries of a thought.
    """

    text: str = ""
    most: int = 0
    entries: bool = False

    def fits(self) -> bool:
        """Whether what is written can begin such a text."""
        text = self.text
        led = not text or (text[0] == " " and not text.startswith("  "))
        return led and _printable(text) and "|" not in text and _length(text) <= self.most


@dataclass(frozen=True)
class ItemIntent:
    """The rest of a line: a space, then an item's intents, or a bundle's intent or reason.

    Args:
        most: Maximum characters, the space included.
    """

    most: int = ITEM_INTENT_CHARACTERS

    def begins(self, text: str) -> bool:
        """Whether some answer begins with this text."""
        return self.free_text(text).fits()

    def complete(self, text: str) -> bool:
        """Whether this beginning is a complete answer."""
        return bool(text.strip()) and text.isprintable()

    def free_text(self, text: str) -> FreeText:
        """The ordinary text at the end of this beginning."""
        return FreeText(text, self.most)


@dataclass(frozen=True)
class BundleList:
    """Lines ``1 3 4 | intent``, or ``none``.

    The numbers of a line ascend, are items of the session and at least two; no bundle is written
    twice. If it ``thinks``, a line ``Thought: ...`` may come first. No text that begins an answer
    runs into a dead end.

    Args:
        num_items: Items of the session, numbered from 1.
        thinks: Whether a thought may come first.
    """

    num_items: int
    thinks: bool = False

    def begins(self, text: str) -> bool:
        """Whether some answer begins with this text."""
        if self.thinks and THOUGHT_PREFIX.startswith(text):
            return True
        lines = self._lines(text)
        if not (self.free_text(text).fits() and _printable(text.replace("\n", " "))):
            return False
        if lines is None or NO_BUNDLE.startswith("\n".join(lines)):
            return not text.startswith((f"{THOUGHT_PREFIX}\n", f"{THOUGHT_PREFIX} \n"))
        *over, last = lines
        written = [_bundle(line) for line in over]
        if not all(self._new(bundle, written[:place]) for place, bundle in enumerate(written)):
            return False
        more = len(over) < MAX_BUNDLES and self._can_grow((), written)
        return more and self._line_begins(last, written)

    def complete(self, text: str) -> bool:
        """Whether this beginning is a complete answer."""
        *over, last = self._lines(text) or [""]
        whole = self._new(_bundle(last), list(map(_bundle, over)))
        return last.isprintable() and (whole or [*over, last] == [NO_BUNDLE])

    def free_text(self, text: str) -> FreeText:
        """The ordinary text at the end of this beginning."""
        lines = self._lines(text)
        if lines is None:
            thought = text.removeprefix(THOUGHT_PREFIX)
            return FreeText(thought, THOUGHT_CHARACTERS * self.num_items, True)
        _, bar, intent = lines[-1].partition(" |")
        return FreeText(intent, 1 + INTENT_CHARACTERS) if bar else FreeText()

    def _lines(self, text: str) -> list[str] | None:
        """The lines of bundles; None while a thought is being written."""
        first, *rest = text.split("\n")
        thought = self.thinks and first.startswith(THOUGHT_PREFIX)
        return (rest or None) if thought else [first, *rest]

    def _line_begins(self, line: str, written: Sequence[Any]) -> bool:
        head, bar, _ = line.partition(" |")
        if bar:
            return self._new(_numbers(head), written)
        *words, digits = head.split(" ")
        begun = _numbers(" ".join(words)) if words else ()
        if begun is None:
            return False
        after = range(begun[-1] + 1 if begun else 1, self.num_items + 1)
        more = [str(k) for k in after if self._can_grow((*begun, k), written)]
        return any(k.startswith(digits) for k in more) or (not digits and self._new(begun, written))

    def _new(self, numbers: tuple[int, ...] | None, written: Sequence[Any]) -> bool:
        if numbers is None or numbers in written:
            return False
        return len(numbers) >= 2 and numbers[-1] <= self.num_items

    def _can_grow(self, begun: tuple[int, ...], written: Sequence[Any]) -> bool:
        """Whether some bundle not written yet begins with these numbers."""
        rest = self.num_items - (begun[-1] if begun else 0)
        too_small = {0: 1 + rest, 1: 1}.get(len(begun), 0)
        taken: int = sum(bundle[: len(begun)] == begun for bundle in written)
        return (1 << rest) - too_small > taken


Grammar = ItemIntent | BundleList


def _bundle(line: str) -> tuple[int, ...] | None:
    """The numbers of a complete line; None if it is incomplete."""
    head, bar, intent = line.partition(" |")
    return None if bar and not intent.strip() else _numbers(head)


def _numbers(text: str) -> tuple[int, ...] | None:
    """Ascending numbers with single spaces between them; None if the text is anything else."""
    words = text.split(" ")
    if not all(word.isascii() and word.isdecimal() and word[0] != "0" for word in words):
        return None
    numbers = tuple(map(int, words))
    return numbers if list(numbers) == sorted(set(numbers)) else None


class TokenFilter:
    """Which tokens of a vocabulary a grammar allows.

    Args:
        tokenizer: The student's.
        vocab_size: Width of the logits.
        end: The end-of-turn token.

    Attributes:
        texts: The text each token adds after other tokens, see `joined`; empty for special ones.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, end: int) -> None:
        self.end = end
        self._size = vocab_size
        special = set(tokenizer.all_special_ids)
        lead = tokenizer("x", add_special_tokens=False)["input_ids"]
        texts = tokenizer.batch_decode(
            [[*lead, token] for token in range(min(vocab_size, len(tokenizer)))],
            clean_up_tokenization_spaces=False,
        )
        pieces = tokenizer.convert_ids_to_tokens(range(len(texts)))
        self.texts = [
            "" if token in special else _decoded(piece) if "\ufffd" in text else text[1:]
            for token, (text, piece) in enumerate(zip(texts, pieces, strict=True))
        ]
        if not _LATER_BYTES.issubset(self.texts):
            # A character once begun might have no way to end.
            self.texts = ["" if set(_BYTES) & set(text) else text for text in self.texts]
        self._lengths = torch.tensor([_length(text) for text in self.texts])
        self._spaces = torch.tensor([len(text) - len(text.lstrip(" ")) for text in self.texts])
        self._plain = torch.tensor([_printable(t) and t != "" and "|" not in t for t in self.texts])
        self._separators = torch.tensor([";" in text for text in self.texts])
        self._structural = [k for k, t in enumerate(self.texts) if t and set(t) <= _STRUCTURE]
        self._newlines = [k for k in self._structural if self.texts[k][0] == "\n"]
        self._later = [
            k for k, t in enumerate(self.texts) if t[:1] in _LATER_BYTES and ";" not in t
        ]
        self._penalty = lru_cache(128)(self._make_penalty)

    def penalty(self, grammar: Grammar, text: str) -> Tensor:
        """The penalty added to next-token scores: 0 for allowed tokens, else minus infinity.

        Args:
            grammar: The answer's grammar.
            text: What is written so far.

        Returns:
            A shared tensor, not to be modified. *Shape:* (vocabulary).
        """
        free, listed = grammar.free_text(text), self._structural
        if text != text.rstrip(_BYTES):
            free, listed = FreeText(), self._later
        elif free.most:
            listed = self._newlines if grammar.begins(text + "\n") else []
        fitting = tuple(k for k in listed if grammar.begins(joined(text, self.texts[k])))
        spaces = None if free.text.strip() else 1 - len(free.text)
        room = free.most - len(free.text)
        return self._penalty(fitting, grammar.complete(text), spaces, room, free.entries)

    def _make_penalty(
        self, listed: tuple[int, ...], complete: bool, spaces: int | None, room: int, entries: bool
    ) -> Tensor:
        """Allow listed tokens, the end if the answer is complete, and ordinary text.

        Args:
            listed: Token ids.
            complete: Whether the answer may end.
            spaces: Number of spaces that ordinary text must begin with; None for any number.
            room: Maximum characters of ordinary text.
            entries: As in `FreeText`.
        """
        fits = self._plain & (self._lengths <= room)
        if not entries:
            fits = fits & ~self._separators
        if spaces is not None:
            fits = fits & (self._spaces == spaces)
        penalty = torch.full((self._size,), -torch.inf)
        penalty[: len(fits)][fits] = 0.0
        penalty[[*listed, self.end] if complete else [*listed]] = 0.0
        return penalty
