"""Grammars of answers, and the tokens that they allow next: every answer is valid."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from routedk.programs.prompting.item_intents import ITEM_INTENT_CHARACTERS
from routedk.programs.prompting.layout import NO_BUNDLE, THOUGHT_PREFIX

INTENT_CHARACTERS = 40
THOUGHT_CHARACTERS = 40
MAX_BUNDLES = 6

_STRUCTURE = frozenset("0123456789 |\n" + NO_BUNDLE + THOUGHT_PREFIX)


class FreeText(NamedTuple):
    """Ordinary text under way: one space, then anything printable.

    Args:
        text: Written of it.
        most: Characters at most, the space included; 0 where no text may stand.
        entries: It may hold ``;``, which separates the entries of a thought.
    """

    text: str = ""
    most: int = 0
    entries: bool = False

    def fits(self) -> bool:
        """Whether the written text is a beginning of such a text."""
        text = self.text
        led = not text or (text[0] == " " and not text.startswith("  "))
        return led and text.isprintable() and "|" not in text and len(text) <= self.most


@dataclass(frozen=True)
class ItemIntent:
    """The rest of a line: a space, then an item's intents, or a bundle's intent or reason.

    Args:
        most: Characters at most, the space included.
    """

    most: int = ITEM_INTENT_CHARACTERS

    def begins(self, text: str) -> bool:
        """Whether some answer begins with this text."""
        return self.free_text(text).fits()

    def complete(self, text: str) -> bool:
        """Whether this beginning is a whole answer."""
        return bool(text.strip())

    def free_text(self, text: str) -> FreeText:
        """The ordinary text that this beginning ends in."""
        return FreeText(text, self.most)


@dataclass(frozen=True)
class BundleList:
    """Lines ``1 3 4 | intent``, or ``none``.

    The numbers of a line ascend, are items of the session and at least two; no bundle is written
    twice. Where it ``thinks``, a line ``Thought: ...`` may stand first. No text that begins an
    answer runs into a dead end.

    Args:
        num_items: Items of the session, numbered from 1.
        thinks: Whether a thought may stand first.
    """

    num_items: int
    thinks: bool = False

    def begins(self, text: str) -> bool:
        """Whether some answer begins with this text."""
        if self.thinks and THOUGHT_PREFIX.startswith(text):
            return True
        lines = self._lines(text)
        if not self.free_text(text).fits():
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
        """Whether this beginning is a whole answer."""
        *over, last = self._lines(text) or [""]
        return [*over, last] == [NO_BUNDLE] or self._new(_bundle(last), list(map(_bundle, over)))

    def free_text(self, text: str) -> FreeText:
        """The ordinary text that this beginning ends in."""
        lines = self._lines(text)
        if lines is None:
            thought = text.removeprefix(THOUGHT_PREFIX)
            return FreeText(thought, THOUGHT_CHARACTERS * self.num_items, True)
        _, bar, intent = lines[-1].partition(" |")
        return FreeText(intent, 1 + INTENT_CHARACTERS) if bar else FreeText()

    def _lines(self, text: str) -> list[str] | None:
        """The lines of bundles; None where a thought is under way."""
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
        """Whether a bundle that is not written yet begins with these numbers."""
        rest = self.num_items - (begun[-1] if begun else 0)
        too_small = {0: 1 + rest, 1: 1}.get(len(begun), 0)
        taken: int = sum(bundle[: len(begun)] == begun for bundle in written)
        return (1 << rest) - too_small > taken


Grammar = ItemIntent | BundleList


def _bundle(line: str) -> tuple[int, ...] | None:
    """The numbers of a whole line; None where it is not whole."""
    head, bar, intent = line.partition(" |")
    return None if bar and not intent.strip() else _numbers(head)


def _numbers(text: str) -> tuple[int, ...] | None:
    """Ascending numbers with single spaces between them; None where it is anything else."""
    words = text.split(" ")
    if not all(word.isascii() and word.isdecimal() and word[0] != "0" for word in words):
        return None
    numbers = tuple(map(int, words))
    return numbers if list(numbers) == sorted(set(numbers)) else None


class TokenFilter:
    """Which tokens of a vocabulary a grammar lets through.

    Args:
        tokenizer: The student's.
        vocab_size: Width of the logits.
        end: The end-of-turn token.

    Attributes:
        texts: The text each token adds after other tokens; empty for special and partial ones.
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
        self.texts = [
            "" if token in special or "\ufffd" in text else text[1:]
            for token, text in enumerate(texts)
        ]
        self._lengths = torch.tensor([len(text) for text in self.texts])
        self._spaces = torch.tensor([len(text) - len(text.lstrip(" ")) for text in self.texts])
        self._plain = torch.tensor(
            [t.isprintable() and t != "" and "|" not in t for t in self.texts]
        )
        self._separators = torch.tensor([";" in text for text in self.texts])
        self._structural = [k for k, t in enumerate(self.texts) if t and set(t) <= _STRUCTURE]
        self._newlines = [k for k in self._structural if self.texts[k][0] == "\n"]
        self._penalty = lru_cache(128)(self._make_penalty)

    def penalty(self, grammar: Grammar, text: str) -> Tensor:
        """The penalty added to next-token scores: 0 for allowed tokens, else minus infinity.

        Args:
            grammar: Of the answer.
            text: What is written of it.

        Returns:
            Not to be written to. *Shape:* (vocabulary).
        """
        free, listed = grammar.free_text(text), self._structural
        if free.most:
            listed = self._newlines if grammar.begins(text + "\n") else []
        fitting = tuple(k for k in listed if grammar.begins(text + self.texts[k]))
        spaces = None if free.text.strip() else 1 - len(free.text)
        room = free.most - len(free.text)
        return self._penalty(fitting, grammar.complete(text), spaces, room, free.entries)

    def _make_penalty(
        self, listed: tuple[int, ...], complete: bool, spaces: int | None, room: int, entries: bool
    ) -> Tensor:
        """Let through listed tokens, the end where the answer is complete, and ordinary text.

        Args:
            listed: Tokens.
            complete: Whether the answer may end.
            spaces: How many ordinary text must begin with; None for any number.
            room: Characters of it at most.
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
