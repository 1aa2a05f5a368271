"""Which texts are answers of the layout, one character at a time."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from routedk.programs.prompting.item_intents import ITEM_INTENT_CHARACTERS
from routedk.programs.prompting.layout import NO_BUNDLE, THOUGHT_PREFIX

INTENT_CHARACTERS = 40
THOUGHT_CHARACTERS = 40
MAX_BUNDLES = 6


@dataclass(frozen=True, slots=True)
class FreeText:
    """Ordinary text that may follow: at most ``room`` characters, with or without a space first.

    Args:
        room: Characters at most.
        lead: ``space``: it must begin with a space; ``word``: it must not; ``any``.
        entries: It may hold ``;``, which separates the entries of a thought.
    """

    room: int
    lead: Literal["space", "word", "any"]
    entries: bool = False


class Grammar(Hashable, Protocol):
    """Which texts are answers, one character at a time. Immutable."""

    @property
    def complete(self) -> bool:
        """Whether the text so far is a whole answer."""
        ...

    @property
    def free_text(self) -> "FreeText | None":
        """What ordinary text may follow; None where only numbers and fixed words may."""
        ...

    @property
    def ending(self) -> int:
        """Tokens within which an answer is whole if it ends as soon as it may; 0 if unknown."""
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
        """Anything up to ``ITEM_INTENT_CHARACTERS``."""
        room = ITEM_INTENT_CHARACTERS - len(self.written)
        if not self.written:
            return FreeText(room, "space")
        return FreeText(room, "any" if self.complete else "word")

    @property
    def ending(self) -> int:
        """Unknown, and not needed: of a label the beginning is a label, too."""
        return 0

    def feed(self, text: str) -> "LabelGrammar | None":
        """Go on while there is room and the text is one line of ordinary text."""
        written = self.written + text
        if len(written) > ITEM_INTENT_CHARACTERS or not text.isprintable():
            return None
        if not written.startswith(" ") or written.startswith("  "):
            return None
        return LabelGrammar(written)


@dataclass(frozen=True)
class AnswerGrammar:
    """Answers of the layout: lines ``1 3 4 | intent`` or ``none``.

    Numbers of a line ascend, are items of the session and at least two; no bundle is written
    twice; there are at most ``max_bundles`` lines; an intent has at most ``INTENT_CHARACTERS``.
    A line ``Thought: ...`` before them has at most ``THOUGHT_CHARACTERS`` per item. No text that
    it accepts can run into a dead end.

    Args:
        num_items: Items of the session, numbered from 1.
        max_bundles: Lines at most.
        thinks: Whether a thought may stand first.
    """

    num_items: int
    max_bundles: int = MAX_BUNDLES
    thinks: bool = False
    at: Literal["start", "word", "thought", "number", "space", "bar", "intent"] = "start"
    digits: str = ""
    numbers: tuple[int, ...] = ()
    written: frozenset[tuple[int, ...]] = frozenset()
    intent: str = ""
    thought: str = ""

    @property
    def ending(self) -> int:
        """See `Grammar`.

        From wherever it is in a line: of the numbers that follow, those of the bundles written
        already may all have to be passed; a thought is not counted.
        """
        return (self.max_bundles + 2) * (len(str(self.num_items)) + 1) + 2

    @property
    def free_text(self) -> FreeText | None:
        """An intent, from the space after the bar on, or a thought, from the colon on."""
        if self.at == "thought":
            lead: Literal["space", "word", "any"] = "any" if self.thought.strip() else "word"
            room = THOUGHT_CHARACTERS * self.num_items - len(self.thought)
            return FreeText(room, lead if self.thought else "space", entries=True)
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
        if self.at in ("start", "word") and (character.isalpha() or character == ":"):
            return self._step_word(self.digits + character)
        if self.at == "thought":
            return self._step_thought(character)
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

    def _step_word(self, word: str) -> "AnswerGrammar | None":
        if self.thinks and word == THOUGHT_PREFIX:
            return replace(self, at="thought", digits="")
        words = (NO_BUNDLE, THOUGHT_PREFIX) if self.thinks else (NO_BUNDLE,)
        fits = not self.written and any(whole.startswith(word) for whole in words)
        return replace(self, at="word", digits=word) if fits else None

    def _step_thought(self, character: str) -> "AnswerGrammar | None":
        if character == "\n":
            whole = bool(self.thought.strip())
            return AnswerGrammar(self.num_items, self.max_bundles) if whole else None
        thought = self.thought + character
        full = len(thought) > THOUGHT_CHARACTERS * self.num_items
        if full or not character.isprintable() or character == "|":
            return None
        if not thought.startswith(" ") or thought.startswith("  "):
            return None
        return replace(self, thought=thought)

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
