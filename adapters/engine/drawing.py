"""How the next token of each completion is drawn, within its grammar."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.generation.logits_process import TopPLogitsWarper

from routedk.adapters.engine.branches import Branch
from routedk.adapters.engine.decoding import TokenFilter
from routedk.adapters.engine.grammars import Grammar


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: 0 for greedy.
        top_p: Nucleus, in (0, 1].
        seed: Seed of the draws; None for an unseeded draw.
        draw: Which of several completions of one request it is, counted from 0: each has draws
            of its own.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    draw: int = 0


GREEDY = Sampling()

# Rows of scores over the vocabulary that are drawn from at once: they stay in a CPU's caches.
_ROWS = 8
# What is further below the best score is never drawn: its exponential would not be a normal
# float, with which a CPU is many times slower.
_LEAST = -80.0


@dataclass(frozen=True, kw_only=True)
class Pen:
    """What writes one completion of each branch of a tree.

    Args:
        sampling: How its tokens are drawn.
        grammar: What it may write, from the beginning; None for any text.
        limit: New tokens at most, at least 1. Towards it an answer of a grammar ends as soon as
            it may, so that it is whole.
        rank: A greedy completion begins with the likeliest token (0), the second likeliest (1)...
        after: Told of each new token: the branch, and whether it is finished; says whether the
            branch is still wanted.
    """

    sampling: Sampling = GREEDY
    grammar: Grammar | None = None
    limit: int
    rank: int = 0
    after: Callable[[Branch, bool], bool] | None = None


class Draw:
    """Draws the next token of each branch.

    A seeded draw depends on its seed, its number among the request's draws, its branch and the
    scores alone, not on what else is in the batch.

    Args:
        token_filter: Which tokens a grammar lets through.
        pens: For each tree its pens; the k-th writes the k-th completion of each branch.
        likelihoods: Gets the log-likelihood of each branch so far, by its row and number; None
            where nobody wants it.
    """

    def __init__(
        self,
        token_filter: TokenFilter,
        pens: Sequence[Sequence[Pen]],
        likelihoods: dict[tuple[int, int], float] | None = None,
    ) -> None:
        self._filter = token_filter
        self._pens = pens
        self._states: dict[tuple[int, int], Grammar | None] = {}
        self._randoms: dict[tuple[int, int], random.Random] = {}
        self.likelihoods = likelihoods

    def __call__(self, branches: Sequence[Branch], scores_NV: Tensor) -> list[int]:
        """See `routedk.adapters.engine.branches.decode_branches`."""
        scores_NV = scores_NV.cpu()
        tokens: list[int] = []
        for first in range(0, len(branches), _ROWS):
            rows = slice(first, first + _ROWS)
            tokens += self._draw(branches[rows], scores_NV[rows].float())
        return tokens

    def _draw(self, branches: Sequence[Branch], scores_NV: Tensor) -> list[int]:
        for branch, scores_V in zip(branches, scores_NV, strict=True):
            mask_V = self._allowed(branch)
            if mask_V is not self._filter.everything:
                scores_V += self._filter.penalties(mask_V)
        best_N = torch.from_numpy(scores_NV.numpy().argmax(axis=-1))
        drawn_N = best_N.clone()
        for place, branch in enumerate(branches):
            rank = 0 if branch.written else self._pen(branch).rank
            if rank:
                drawn_N[place] = scores_NV[place].topk(rank + 1).indices[rank]
        sampled = [k for k, b in enumerate(branches) if self._pen(b).sampling.temperature > 0]
        if sampled:
            drawn_N[sampled] = self._sampled([branches[k] for k in sampled], scores_NV[sampled])
        if self.likelihoods is not None:
            best_N1 = scores_NV.gather(-1, best_N[:, None])
            chosen_N = scores_NV.gather(-1, drawn_N[:, None])[:, 0] - _log_sum(scores_NV, best_N1)
            for branch, likelihood in zip(branches, chosen_N.tolist(), strict=True):
                key = (branch.row, branch.number)
                self.likelihoods[key] = self.likelihoods.get(key, 0.0) + likelihood
        tokens: list[int] = drawn_N.tolist()
        return tokens

    def goes_on(self, branch: Branch) -> bool:
        """Whether a branch that has a new token is neither finished nor given up."""
        pen = self._pen(branch)
        finished = branch.written[-1] == self._filter.end or len(branch.written) >= pen.limit
        wanted = pen.after is None or pen.after(branch, finished)
        return wanted and not finished

    def _allowed(self, branch: Branch) -> Tensor:
        state = self._state(branch)
        if state is None:
            return self._filter.everything
        left = self._pen(branch).limit - len(branch.written)
        if state.complete and left <= state.ending:
            return self._filter.only_end
        return self._filter.allowed(state)

    def _pen(self, branch: Branch) -> Pen:
        return self._pens[branch.row][branch.draw]

    def _sampled(self, branches: Sequence[Branch], scores_NV: Tensor) -> Tensor:
        """Where a uniform number falls among the tokens' shares of the probability."""
        pens = [self._pen(branch).sampling for branch in branches]
        warmed_NV = scores_NV / torch.tensor([[pen.temperature] for pen in pens])
        for place, pen in enumerate(pens):
            if pen.top_p < 1:
                row_1V = warmed_NV[place : place + 1]
                warmed_NV[place] = TopPLogitsWarper(pen.top_p)(torch.empty(0), row_1V)[0]
        best_N1 = warmed_NV.amax(dim=-1, keepdim=True)
        # What is forbidden, or hardly possible, has no share at all.
        shares_NV = _exponentials(warmed_NV, best_N1) * (warmed_NV - best_N1 > _LEAST)
        shares_NV = shares_NV.double().cumsum(dim=-1)
        whole_N1 = shares_NV[:, -1:].contiguous()
        uniform_N1 = torch.tensor([[self._random(b).random()] for b in branches]).double()
        drawn_N1 = torch.searchsorted(shares_NV, uniform_N1 * whole_N1, right=True)
        # Rounding must not lead beyond the last token that has a share.
        return drawn_N1.minimum(torch.searchsorted(shares_NV, whole_N1))[:, 0]

    def _random(self, branch: Branch) -> random.Random:
        key = (branch.row, branch.number)
        if key not in self._randoms:
            pen = self._pen(branch)
            seed = pen.sampling.seed
            if seed is None:
                seed = int(torch.randint(2**62, ()))
            which = f"{seed} {pen.sampling.draw} {pen.rank} {branch.stem}"
            self._randoms[key] = random.Random(which)
        return self._randoms[key]

    def _state(self, branch: Branch) -> Grammar | None:
        key = (branch.row, branch.number)
        state = self._states.get(key, self._pen(branch).grammar)
        if branch.written and state is not None:
            state = state.feed(self._filter.texts[branch.written[-1]])
            assert state is not None, "a token outside the grammar was drawn"
        self._states[key] = state
        return state


def _exponentials(scores_NV: Tensor, best_N1: Tensor) -> Tensor:
    """What each token's probability is in proportion to, 1 for the best."""
    return (scores_NV - best_N1).clamp_(min=_LEAST).exp_()


def _log_sum(scores_NV: Tensor, best_N1: Tensor) -> Tensor:
    """The logarithm of the sum of the scores' exponentials; *shape* (branches,)."""
    return best_N1[:, 0] + _exponentials(scores_NV, best_N1).sum(dim=-1).log()
