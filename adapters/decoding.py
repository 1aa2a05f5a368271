"""Decoding constrained to the layout's answers for the session at hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from routedk.programs.item_intents import LABEL_CHARACTERS
from routedk.programs.layout import NO_BUNDLE

INTENT_CHARACTERS = 40
MAX_BUNDLES = 6

_KNOWN_GRAMMARS = 4096
_STRUCTURE = frozenset("0123456789 |\n" + NO_BUNDLE)


@dataclass(frozen=True, slots=True)
class FreeText:
    """Ordinary text that may follow: at most ``room`` characters, with or without a space first.

    Args:
        room: Characters at most.
        lead: ``space``: it must begin with a space; ``word``: it must not; ``any``.
    """

    room: int
    lead: Literal["space", "word", "any"]


class Grammar(Protocol):
    """Which texts are answers, one character at a time. Immutable."""

    @property
    def complete(self) -> bool:
        """Whether the text so far is a whole answer."""
        ...

    @property
    def free_text(self) -> "FreeText | None":
        """What ordinary text may follow; None where only numbers and fixed words may."""
        ...

    def feed(self, text: str) -> "Grammar | None":
        """The grammar after ``text``, or None where no answer goes on so."""
        ...


@dataclass(frozen=True)
class LabelGrammar:
    """The rest of a line of an item thought: a space, then an item's intents."""

    written: str = ""

    @property
    def complete(self) -> bool:
        """Whether something is written."""
        return bool(self.written.strip())

    @property
    def free_text(self) -> FreeText | None:
        """Anything up to ``LABEL_CHARACTERS``."""
        room = LABEL_CHARACTERS - len(self.written)
        if not self.written:
            return FreeText(room, "space")
        return FreeText(room, "any" if self.complete else "word")

    def feed(self, text: str) -> "LabelGrammar | None":
        """Go on while there is room and the text is one line of ordinary text."""
        written = self.written + text
        if len(written) > LABEL_CHARACTERS or not text.isprintable():
            return None
        if not written.startswith(" ") or written.startswith("  "):
            return None
        return LabelGrammar(written)


@dataclass(frozen=True)
class AnswerGrammar:
    """Answers of the layout: lines ``1 3 4 | intent`` or ``none``.

    Numbers of a line ascend, are items of the session and at least two; no bundle is written
    twice; there are at most ``max_bundles`` lines; an intent has at most ``INTENT_CHARACTERS``.
    No text that it accepts can run into a dead end.

    Args:
        num_items: Items of the session, numbered from 1.
        max_bundles: Lines at most.
    """

    num_items: int
    max_bundles: int = MAX_BUNDLES
    at: Literal["start", "word", "number", "space", "bar", "intent"] = "start"
    digits: str = ""
    numbers: tuple[int, ...] = ()
    written: frozenset[tuple[int, ...]] = frozenset()
    intent: str = ""

    @property
    def free_text(self) -> FreeText | None:
        """An intent, from the space after the bar on."""
        if self.at == "bar":
            return FreeText(INTENT_CHARACTERS + 1, "space")
        if self.at == "intent":
            return FreeText(INTENT_CHARACTERS - len(self.intent), "any" if self.intent else "word")
        return None

    @property
    def complete(self) -> bool:
        """After ``none``, after an intent, or after the numbers of a bundle without one."""
        if self.at == "word":
            return self.digits == NO_BUNDLE
        if self.at == "number":
            return self._bundle() is not None
        return self.at == "intent" and bool(self.intent.strip())

    def feed(self, text: str) -> "AnswerGrammar | None":
        """Go on, character by character."""
        state: AnswerGrammar | None = self
        for character in text:
            state = state._step(character) if state is not None else None
        return state

    def _step(self, character: str) -> "AnswerGrammar | None":
        if self.at in ("start", "word") and character.isalpha():
            word = self.digits + character
            fits = not self.written and NO_BUNDLE.startswith(word)
            return replace(self, at="word", digits=word) if fits else None
        if character.isdecimal() and self.at in ("start", "space", "number"):
            digits = self.digits + character if self.at == "number" else character
            fits = any(str(number).startswith(digits) for number in self._next_numbers())
            return replace(self, at="number", digits=digits) if fits else None
        if self.at == "intent":
            return self._step_intent(character)
        if self.at == "number":
            return self._after_number(character)
        if character == "|" and self.at == "space" and self._is_new(self.numbers):
            return replace(self, at="bar")
        if character == " " and self.at == "bar":
            return replace(self, at="intent", intent="")
        return None

    def _step_intent(self, character: str) -> "AnswerGrammar | None":
        if character == "\n":
            return self._next_line(self.numbers) if self.intent.strip() else None
        full = len(self.intent) >= INTENT_CHARACTERS
        if full or not character.isprintable() or character == "|":
            return None
        if character == " " and not self.intent:
            return None
        return replace(self, intent=self.intent + character)

    def _after_number(self, character: str) -> "AnswerGrammar | None":
        number = int(self.digits)
        if character == "\n":
            numbers = self._bundle()
            return None if numbers is None else self._next_line(numbers)
        if character != " " or number not in self._next_numbers():
            return None
        return replace(self, at="space", digits="", numbers=(*self.numbers, number))

    def _bundle(self) -> tuple[int, ...] | None:
        """The numbers of this line if they are a new bundle as they stand."""
        numbers = (*self.numbers, int(self.digits))
        valid = int(self.digits) in self._next_numbers() and self._is_new(numbers)
        return numbers if valid else None

    def _next_line(self, numbers: tuple[int, ...]) -> "AnswerGrammar | None":
        written = self.written | {numbers}
        if len(written) >= self.max_bundles or not self._can_grow((), written):
            return None
        return AnswerGrammar(self.num_items, self.max_bundles, written=written)

    def _is_new(self, numbers: tuple[int, ...]) -> bool:
        return len(numbers) >= 2 and numbers not in self.written

    def _next_numbers(self) -> list[int]:
        """Numbers that may follow: from each some bundle that is not yet written is reached."""
        last = self.numbers[-1] if self.numbers else 0
        return [
            number
            for number in range(last + 1, self.num_items + 1)
            if self._can_grow((*self.numbers, number), self.written)
        ]

    def _can_grow(self, begun: tuple[int, ...], written: frozenset[tuple[int, ...]]) -> bool:
        """Whether an unwritten bundle of at least two items begins with these numbers."""
        rest = self.num_items - (begun[-1] if begun else 0)
        too_small = {0: 1 + rest, 1: 1}.get(len(begun), 0)
        taken = sum(bundle[: len(begun)] == begun for bundle in written)
        return (1 << rest) - too_small > taken


@dataclass
class TokenFilter:
    """Which tokens of a vocabulary a grammar lets through.

    Args:
        tokenizer: The student's tokenizer.
        vocab_size: Width of the logits.
        end: The end-of-turn token.
    """

    tokenizer: Any
    vocab_size: int
    end: int
    _known: dict[Grammar, Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def texts(self) -> list[str]:
        """The text each token adds after other tokens; empty for special and partial ones."""
        special = set(self.tokenizer.all_special_ids)
        count = min(self.vocab_size, len(self.tokenizer))
        lead = self.tokenizer("x", add_special_tokens=False)["input_ids"]
        texts = self.tokenizer.batch_decode(
            [[*lead, token] for token in range(count)], clean_up_tokenization_spaces=False
        )
        return [
            "" if token in special or "\ufffd" in text else text[1:]
            for token, text in enumerate(texts)
        ]

    @cached_property
    def structural(self) -> list[tuple[int, str]]:
        """Tokens made only of the characters that numbers, bars and fixed words need."""
        return [(k, text) for k, text in enumerate(self.texts) if text and set(text) <= _STRUCTURE]

    @cached_property
    def line_ends(self) -> list[tuple[int, str]]:
        """Structural tokens that end a line."""
        return [(k, text) for k, text in self.structural if text.startswith("\n")]

    @cached_property
    def free(self) -> dict[str, Tensor]:
        """Masks of the tokens that ordinary text is made of, by how it must begin."""
        fits = torch.tensor(
            [
                bool(text) and text.isprintable() and not {"|", ";"} & set(text)
                for text in self.texts
            ]
        )
        spaces = torch.tensor([len(text) - len(text.lstrip(" ")) for text in self.texts])
        return {"any": fits, "space": fits & (spaces == 1), "word": fits & (spaces == 0)}

    @cached_property
    def lengths(self) -> Tensor:
        """Characters of each token; *shape* (tokens,)."""
        return torch.tensor([len(text) for text in self.texts])

    def allowed(self, grammar: Grammar) -> Tensor:
        """A mask of the tokens that may follow; *shape* (vocabulary,), true where allowed."""
        text = grammar.free_text
        if text is None and grammar in self._known:
            return self._known[grammar]
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        if text is not None:
            mask[: len(self.texts)] = self.free[text.lead] & (self.lengths <= text.room)
        for token, piece in self.structural if text is None else self.line_ends:
            mask[token] = grammar.feed(piece) is not None
        mask[self.end] = grammar.complete
        if text is None and len(self._known) < _KNOWN_GRAMMARS:
            self._known[grammar] = mask
        return mask


class ConstrainedLogits:
    """A logits processor of transformers: one grammar per row of the batch."""

    def __init__(self, token_filter: TokenFilter, grammars: Sequence[Grammar | None]) -> None:
        self.filter = token_filter
        self.states: list[Grammar | None] = list(grammars)
        self.started = False

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        """Forbid what the grammars do not allow.

        Args:
            input_ids: Tokens so far, one call per new token. *Shape:* (batch, tokens).
            scores_BV: Next-token scores. *Shape:* (batch, vocabulary).
        """
        masked_BV = scores_BV.clone()
        for row, state in enumerate(self.states):
            if state is None:
                continue
            token = int(input_ids[row, -1])
            if self.started and token != self.filter.end:
                state = self.states[row] = state.feed(self.filter.texts[token])
                assert state is not None, "a token outside the grammar was sampled"
            if not (self.started and token == self.filter.end):
                allowed = self.filter.allowed(state).to(scores_BV.device)
                masked_BV[row, ~allowed] = -torch.inf
        self.started = True
        return masked_BV
