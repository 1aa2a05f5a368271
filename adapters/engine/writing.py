"""Completions to write for a prompt, the branches that write them, and their next tokens."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import TopPLogitsWarper

from routedk.adapters.engine.batcher import Job
from routedk.adapters.engine.grammar import Grammar, TokenFilter, joined
from routedk.adapters.prompts import EncodedPrompt

# Divided by less, scores overflow; the likeliest token has all the probability long before.
_COLDEST = 1e-3
# Tokens beyond the limit within which an incomplete line may still be finished.
_OVERTIME = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Writing(Job):
    """Completions to write for one prompt.

    Args:
        prompt: The prompt as tokens.
        heads: The beginnings of its lines; a single empty one for an answer without lines.
        grammar: What each line may be; None for any text.
        limit: Tokens after which each line ends as soon as it is complete, at least 1.
        temperature: 0 for greedy.
        top_p: For nucleus sampling, in (0, 1].
        seed: Seed of the samples; None for unseeded ones.
    """

    prompt: EncodedPrompt
    heads: tuple[tuple[int, ...], ...] = ((),)
    grammar: Grammar | None = None
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(eq=False)
class Branch:
    """One completion as it is written.

    Args:
        job: What it is for.
        line: Which of the job's lines it is, counted from 0.
        row: The row of its tree.
        number: Its own number in the tree.

    Attributes:
        tokens: Written so far.
        text: Their text, without special tokens; see `joined`.
        ended: Whether the last token is the end of turn.
    """

    job: Writing
    line: int
    row: int
    number: int
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False

    def __post_init__(self) -> None:
        """Seed its samples by job and line, not by what else is in the batch."""
        seed = self.job.seed
        self._random = random.Random(None if seed is None else f"{seed} {self.line}")

    @property
    def under_way(self) -> bool:
        """Whether there is more to write."""
        grammar = self.job.grammar
        whole = grammar is None or grammar.complete(self.text)
        over = self.ended or len(self.tokens) >= self.job.limit + (0 if whole else _OVERTIME)
        return not (over or self.job.future.cancelled())

    def choose(self, scores_V: Tensor) -> int:
        """Choose its next token by these scores."""
        job = self.job
        if job.temperature < _COLDEST:
            return int(scores_V.argmax())
        warmed_V = scores_V / job.temperature
        if job.top_p < 1:
            warmed_V = TopPLogitsWarper(job.top_p)(None, warmed_V[None])[0]
        shares_V = warmed_V.softmax(dim=-1).double().cumsum(dim=-1)
        # Rounding must not lead past the last token with a nonzero probability.
        share = min(self._random.random(), 1 - 1e-9) * shares_V[-1]
        return int(torch.searchsorted(shares_V, share, right=True))


def write_tokens(branches: Sequence[Branch], scores_NV: Tensor, allowed: TokenFilter) -> None:
    """Choose the next token of each branch and append it.

    Args:
        branches: At least one.
        scores_NV: Their next-token scores. *Shape:* (branches, vocabulary).
        allowed: What grammars allow.
    """
    for branch, scores_V in zip(branches, scores_NV.cpu().float(), strict=True):
        if branch.job.grammar is not None:
            scores_V += allowed.penalty(branch.job.grammar, branch.text)
        token = branch.choose(scores_V)
        branch.tokens.append(token)
        branch.text = joined(branch.text, allowed.texts[token])
        branch.ended = token == allowed.end
