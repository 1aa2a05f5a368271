"""Decoding constrained to the layout's answers for the session at hand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from routedk.adapters.engine.grammars import FreeText, Grammar
from routedk.programs.prompting.layout import NO_BUNDLE, THOUGHT_PREFIX

_KEPT_MASKS = 1024
# Four times as large as masks, and few are in use at a time.
_KEPT_PENALTIES = 64
_STRUCTURE = frozenset("0123456789 |\n" + NO_BUNDLE + THOUGHT_PREFIX)


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

    def __post_init__(self) -> None:
        """Keep the latest masks."""
        self._of_grammar = lru_cache(_KEPT_MASKS)(self._structured)
        self._of_text = lru_cache(_KEPT_MASKS)(self._free)
        self.penalties = lru_cache(_KEPT_PENALTIES)(self._penalties)

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
    def free(self) -> dict[tuple[str, bool], Tensor]:
        """Masks of the tokens that text is made of, by how it begins and whether it has ``;``."""
        spaces = torch.tensor([len(text) - len(text.lstrip(" ")) for text in self.texts])
        masks: dict[tuple[str, bool], Tensor] = {}
        for entries in (False, True):
            apart = {"|"} if entries else {"|", ";"}
            fits = torch.tensor(
                [bool(t) and t.isprintable() and not apart & set(t) for t in self.texts]
            )
            leads = {"any": fits, "space": fits & (spaces == 1), "word": fits & (spaces == 0)}
            masks |= {(lead, entries): mask for lead, mask in leads.items()}
        return masks

    @cached_property
    def lengths(self) -> Tensor:
        """Characters of each token; *shape* (tokens,)."""
        return torch.tensor([len(text) for text in self.texts])

    @cached_property
    def longest(self) -> int:
        """Characters of the longest token: more room than that makes no difference."""
        return int(self.lengths.max())

    @cached_property
    def everything(self) -> Tensor:
        """The mask that lets every token through."""
        return torch.ones(self.vocab_size, dtype=torch.bool)

    @cached_property
    def only_end(self) -> Tensor:
        """The mask that lets nothing through but the end of turn."""
        return torch.arange(self.vocab_size) == self.end

    def allowed(self, grammar: Grammar) -> Tensor:
        """A mask of the tokens that may follow; *shape* (vocabulary,), true where allowed.

        Masks are kept, and the same one is given again: they are not to be written to.
        """
        text = grammar.free_text
        if text is None:
            return self._of_grammar(grammar)
        # No token that ends a line fits where the line may not end.
        line_ends = self.line_ends if grammar.feed("\n") is not None else []
        ends = tuple(token for token, piece in line_ends if grammar.feed(piece) is not None)
        room = min(text.room, self.longest)
        return self._of_text(replace(text, room=room), grammar.complete, ends)

    def _penalties(self, mask_V: Tensor) -> Tensor:
        """What is added to scores to forbid what a mask of `allowed` does not let through.

        Adding them is faster than filling by a mask.
        """
        return torch.zeros(mask_V.shape).masked_fill(~mask_V, -torch.inf)

    def _structured(self, grammar: Grammar) -> Tensor:
        return self._mask(
            torch.tensor([k for k, piece in self.structural if grammar.feed(piece) is not None]),
            grammar.complete,
        )

    def _free(self, text: FreeText, complete: bool, ends: tuple[int, ...]) -> Tensor:
        fits = self.free[text.lead, text.entries] & (self.lengths <= text.room)
        return self._mask(torch.cat([fits.nonzero()[:, 0], torch.tensor(ends)]), complete)

    def _mask(self, tokens: Tensor, complete: bool) -> Tensor:
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        mask[tokens.long()] = True
        mask[self.end] = complete
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
