"""Batched, constrained generation with the experts fused per session."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import TopPLogitsWarper

from routedk.adapters.branches import Branch, decode_branches
from routedk.adapters.decoding import ConstrainedLogits, TokenFilter
from routedk.adapters.examples import encode_head
from routedk.adapters.grammars import (
    THOUGHT_CHARACTERS,
    AnswerGrammar,
    Grammar,
    LabelGrammar,
)
from routedk.adapters.likelihoods import Scored, ScoringJob, score_jobs
from routedk.adapters.prompts import EncodedPrompt, end_of_turn
from routedk.adapters.routed import RoutedStudent
from routedk.adapters.student import Student
from routedk.adapters.trees import grow_tree

_LABEL_TOKENS = 12
_TOKENS_PER_ITEM = 8


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: 0 for greedy.
        top_p: Nucleus, in (0, 1].
        seed: Seed of the draws; None for an unseeded draw.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of ``generate`` in transformers."""
        if self.temperature <= 0:
            return {"do_sample": False}
        return {
            "do_sample": True,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
        }


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Completion:
    """What the student wrote.

    Args:
        text: Without the end of turn.
        tokens: Number of new tokens, the end of turn included.
        finished: Whether the end of turn was written.
    """

    text: str
    tokens: int
    finished: bool


class Draw:
    """Draws the next token of each branch, within the branch's grammar.

    Greedy completions of one branch begin with its likeliest tokens, each with another.

    Args:
        token_filter: Which tokens a grammar lets through.
        grammar: Every branch's, at its beginning.
        sampling: How tokens are drawn.

    Attributes:
        likelihoods: Log-likelihood of each branch so far, by its row and number.
    """

    def __init__(self, token_filter: TokenFilter, grammar: Grammar, sampling: Sampling) -> None:
        self._filter = token_filter
        self._grammar = grammar
        self._states: dict[tuple[int, int], Grammar] = {}
        self._sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is not None:
            self._random.manual_seed(sampling.seed)
        else:
            self._random.seed()
        self.likelihoods: dict[tuple[int, int], float] = {}

    def __call__(self, branches: Sequence[Branch], scores_NV: Tensor) -> list[int]:
        """See `routedk.adapters.branches.decode_branches`."""
        states = [self._state(branch) for branch in branches]
        allowed_NV = torch.stack([self._filter.allowed(state) for state in states])
        scores_NV = scores_NV.cpu().masked_fill_(~allowed_NV, -torch.inf)
        drawn_N = self._tokens(branches, scores_NV)
        chosen_N = scores_NV.gather(-1, drawn_N[:, None])[:, 0] - scores_NV.logsumexp(dim=-1)
        for branch, likelihood in zip(branches, chosen_N.tolist(), strict=True):
            key = (branch.row, branch.number)
            self.likelihoods[key] = self.likelihoods.get(key, 0.0) + likelihood
        tokens: list[int] = drawn_N.tolist()
        return tokens

    def _tokens(self, branches: Sequence[Branch], scores_NV: Tensor) -> Tensor:
        if self._sampling.temperature > 0:
            warmed_NV = scores_NV / self._sampling.temperature
            if self._sampling.top_p < 1:
                warmed_NV = TopPLogitsWarper(self._sampling.top_p)(torch.empty(0), warmed_NV)
            return torch.multinomial(warmed_NV.softmax(dim=-1), 1, generator=self._random)[:, 0]
        ranks = [0 if branch.written else branch.draw for branch in branches]
        best_NK = scores_NV.topk(max(ranks) + 1, dim=-1).indices
        return best_NK.gather(-1, torch.tensor(ranks)[:, None])[:, 0]

    def _state(self, branch: Branch) -> Grammar:
        key = (branch.row, branch.number)
        state = self._states.get(key, self._grammar)
        if branch.written:
            fed = state.feed(self._filter.texts[branch.written[-1]])
            assert fed is not None, "a token outside the grammar was drawn"
            state = fed
        self._states[key] = state
        return state


class Generator:
    """Writes answers with a student, plain or routed.

    Args:
        student: A routed student, or one as it is.
    """

    def __init__(self, student: RoutedStudent | Student) -> None:
        self.routed = student if isinstance(student, RoutedStudent) else None
        self.base = student.student if isinstance(student, RoutedStudent) else student
        self.tokenizer: Any = self.base.tokenizer
        self.end = end_of_turn(self.tokenizer)

    @cached_property
    def token_filter(self) -> TokenFilter:
        """What the grammars let through, made on first use."""
        return TokenFilter(self.tokenizer, self.base.model.config.vocab_size, self.end)

    def bundles(
        self,
        prompts: Sequence[EncodedPrompt],
        sizes: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        thinks: bool = False,
    ) -> list[Completion]:
        """Lines ``1 3 4 | intent``, held to the items of each session.

        Args:
            prompts: One per session.
            sizes: Number of items of each session.
            sampling: How tokens are drawn.
            thinks: Whether a line ``Thought: ...`` may stand first.
        """
        grammars = [AnswerGrammar(size, thinks=thinks) for size in sizes]
        # A token has a character at least, so a thought always ends before its limit.
        more = THOUGHT_CHARACTERS if thinks else 0
        limits = [_TOKENS_PER_ITEM * (size + 2) + more * (size + 1) for size in sizes]
        return self.complete(prompts, grammars, limits, sampling)

    @torch.inference_mode()
    def complete(
        self,
        prompts: Sequence[EncodedPrompt],
        grammars: Sequence[Grammar | None],
        max_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
    ) -> list[Completion]:
        """Complete each prompt, within its grammar where it has one.

        Args:
            prompts: At least one.
            grammars: One per prompt; None where any text is an answer.
            max_tokens: New tokens at most, one number per prompt, at least 1.
            sampling: How tokens are drawn.
        """
        ids, mask = self._left_padded([prompt.ids for prompt in prompts])
        with self._fused(prompts):
            output = self._generate(ids, mask, grammars, max(max_tokens), sampling)
        rows = output[:, ids.shape[1] :].tolist()
        # Cut to its own limit, a row does not depend on which others were in its batch.
        return [self._read(row[:limit]) for row, limit in zip(rows, max_tokens, strict=True)]

    def item_lines(
        self,
        prompts: Sequence[EncodedPrompt],
        items: Sequence[Sequence[str]],
        sampling: Sampling = GREEDY,
        readings: int = 1,
    ) -> list[list[list[Completion]]]:
        """For each session the intent of each item, each written blind to the others.

        Args:
            prompts: One per session.
            items: The item lines of each session.
            sampling: How tokens are drawn.
            readings: Answers per item.

        Returns:
            For each session and item its readings, the likeliest first.
        """
        trees = []
        for prompt, lines in zip(prompts, items, strict=True):
            heads = (encode_head(self.tokenizer, line) for line in lines)
            trees.append(grow_tree(prompt.ids, [(head, len(head)) for head in heads]))
        draw = Draw(self.token_filter, LabelGrammar(), sampling)
        with self._fused(prompts):
            branches = decode_branches(
                self.base.model,
                trees,
                draw,
                end=self.end,
                max_tokens=_LABEL_TOKENS,
                draws=readings,
            )
        found = []
        for mine in branches:
            mine.sort(key=lambda b: (b.stem, -draw.likelihoods[b.row, b.number], b.number))
            written = [self._read(branch.written) for branch in mine]
            found.append([written[k : k + readings] for k in range(0, len(written), readings)])
        return found

    def score(self, jobs: Sequence[ScoringJob]) -> list[Scored]:
        """The likelihoods of given completions, each session's under its own gates."""
        return score_jobs(self.base.model, jobs, self._fused)

    @property
    def _model(self) -> Any:
        return self.base.model if self.routed is None else self.routed.model

    def _fused(self, prompts: Sequence[EncodedPrompt]) -> Any:
        if self.routed is None:
            return nullcontext()
        return self.routed.gate_state.use(self.routed.gates(prompts))

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = [[pad] * (longest - len(row)) + [*row] for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _generate(
        self,
        ids: Tensor,
        mask: Tensor,
        grammars: Sequence[Grammar | None],
        max_tokens: int,
        sampling: Sampling,
    ) -> Tensor:
        if sampling.temperature > 0 and sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        output: Tensor = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            eos_token_id=self.end,
            pad_token_id=self.end,
            logits_processor=[ConstrainedLogits(self.token_filter, grammars)],
            **sampling.arguments,
        )
        return output

    def _read(self, row: list[int]) -> Completion:
        finished = self.end in row
        written = row[: row.index(self.end)] if finished else row
        text = self.tokenizer.decode(
            written, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Completion(text, len(written) + finished, finished)
