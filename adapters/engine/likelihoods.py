"""Log-likelihoods of given completions of a prompt, computed as one token tree.

The prompt is computed once, however many completions it has, and a head that several completions
begin with once, too: a head is a branch of the prompt, and what follows it is a branch of the head.
Each token sees what it would see alone, at the position it would have alone, so the likelihoods
equal those of separate rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from routedk.adapters.engine.kv_cache import Prefix
from routedk.adapters.engine.passes import Gating, no_gates, read_trees
from routedk.adapters.prompts import EncodedPrompt, Tokenizer, end_of_turn

# Most tokens that the completions of one tree have together: attention grows with their square.
_TREE_TOKENS = 256
# Places whose scores over the vocabulary are held at once.
_PLACES = 256


@dataclass(frozen=True, slots=True)
class Continuation:
    """A completion of a prompt whose likelihood is asked for; the end of turn belongs to it.

    Args:
        text: What is scored, as a student writes it after the head: with its leading space.
        given: The head: it stands before the text and is not scored.
    """

    text: str
    given: str = ""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely one completion is.

    Args:
        total: Sum of the log-probabilities of its scored tokens, the end of turn included.
        tokens: Number of scored tokens, at least 1.
    """

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """The log-probability per token."""
        return self.total / self.tokens


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """Completions of one prompt to be scored; a kind of job of the engine.

    Args:
        prompt: The prompt as tokens.
        heads: Token ids of each completion's head, perhaps none.
        tails: Token ids of what is scored of each, at least one token.
    """

    prompt: EncodedPrompt
    heads: tuple[tuple[int, ...], ...]
    tails: tuple[tuple[int, ...], ...]

    @property
    def kind(self) -> str:
        """Jobs of equal kind share a batch."""
        return "scoring"


@dataclass(frozen=True, slots=True)
class Scored:
    """What a `ScoringJob` gives.

    Args:
        likelihoods: One per completion.
        tokens: Tokens of the prompt and its branches, whether or not the prompt was known.
    """

    likelihoods: tuple[Likelihood, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class ScoringTree:
    """Completions packed behind their common prompt; the first four have one entry per token.

    Args:
        input_ids: Token ids: the prompt, the heads, the tails but for their last tokens.
        position_ids: The position each token has in its own sequence.
        branch_ids: 0 for the prompt, k for the k-th head or tail.
        stem_ids: The head that a tail goes on from; a token's own branch elsewhere.
        scored: For each completion its scored tokens, each after the place of the one before it.
    """

    input_ids: list[int]
    position_ids: list[int]
    branch_ids: list[int]
    stem_ids: list[int]
    scored: list[list[tuple[int, int]]]


def scoring_job(
    tokenizer: Tokenizer, prompt: EncodedPrompt, continuations: Sequence[Continuation]
) -> ScoringJob:
    """Completions as tokens; head and text are tokenised apart, as training does."""
    end = end_of_turn(tokenizer)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    return ScoringJob(
        prompt,
        tuple(ids(one.given) for one in continuations),
        tuple((*ids(one.text), end) for one in continuations),
    )


def grow_scoring_tree(
    prompt: Sequence[int], heads: Sequence[Sequence[int]], tails: Sequence[Sequence[int]]
) -> ScoringTree:
    """Pack completions behind their prompt; arguments as in `ScoringJob`."""
    tree = ScoringTree(
        list(prompt), list(range(len(prompt))), [0] * len(prompt), [0] * len(prompt), []
    )
    grown: dict[tuple[int, ...], tuple[int, int]] = {(): (0, len(prompt) - 1)}
    branch = 0
    for head, tail in zip(map(tuple, heads), tails, strict=True):
        if head not in grown:
            branch += 1
            _add(tree, head, len(prompt), branch, branch)
            grown[head] = (branch, len(tree.input_ids) - 1)
        stem, place = grown[head]
        branch += 1
        first = len(tree.input_ids)
        _add(tree, tail[:-1], tree.position_ids[place] + 1, branch, stem or branch)
        before = (place, *range(first, first + len(tail) - 1))
        tree.scored.append(list(zip(before, tail, strict=True)))
    return tree


def _add(tree: ScoringTree, ids: Sequence[int], position: int, branch: int, stem: int) -> None:
    tree.input_ids.extend(ids)
    tree.position_ids.extend(range(position, position + len(ids)))
    tree.branch_ids.extend([branch] * len(ids))
    tree.stem_ids.extend([stem] * len(ids))


def split_job(job: ScoringJob) -> list[ScoringTree]:
    """The trees that score a job, in the order of its completions.

    Completions of one head stay together where they can. Since the prompt is known, several small
    trees cost less than a large one, whose branches would all be compared with each other.
    """
    sizes: list[tuple[int, int]] = []
    places = range(len(job.tails))
    for head, mine in groupby(places, key=job.heads.__getitem__):
        tails = [len(job.tails[place]) for place in mine]
        whole = len(head) + sum(tails)
        if whole <= _TREE_TOKENS:
            sizes.append((len(tails), whole))
        else:
            sizes += [(1, len(head) + tail) for tail in tails]
    cuts, place, size = [0], 0, 0
    for count, tokens in sizes:
        if size and size + tokens > _TREE_TOKENS:
            cuts.append(place)
            size = 0
        place, size = place + count, size + tokens
    return [
        grow_scoring_tree(job.prompt.ids, job.heads[first:last], job.tails[first:last])
        for first, last in pairwise([*cuts, len(job.tails)])
    ]


def score_jobs(
    model: Any,
    jobs: Sequence[ScoringJob],
    prefixes: Sequence[Prefix | None],
    gating: Gating = no_gates,
) -> list[Scored]:
    """Score the completions of several prompts.

    Args:
        model: As in `score_trees`.
        jobs: Each with at least one completion.
        prefixes: For each job what is known of its prompt, its last token excepted.
        gating: Sets the gates of these jobs' prompts.
    """
    grown = [(place, tree) for place, job in enumerate(jobs) for tree in split_job(job)]
    found = score_trees(
        model,
        [tree for _, tree in grown],
        [prefixes[place] for place, _ in grown],
        lambda trees: gating([grown[tree][0] for tree in trees]),
    )
    likelihoods: list[list[Likelihood]] = [[] for _ in jobs]
    tokens = [len(job.prompt.ids) for job in jobs]
    for (place, tree), mine in zip(grown, found, strict=True):
        likelihoods[place] += mine
        tokens[place] += len(tree.input_ids) - len(jobs[place].prompt.ids)
    return [Scored(tuple(mine), read) for mine, read in zip(likelihoods, tokens, strict=True)]


@torch.inference_mode()
def score_trees(
    model: Any,
    trees: Sequence[ScoringTree],
    prefixes: Sequence[Prefix | None] | None = None,
    gating: Gating = no_gates,
) -> list[list[Likelihood]]:
    """The likelihoods of the completions of each tree.

    Args:
        model: A causal LM of transformers with ``model`` and ``lm_head``.
        trees: At least one.
        prefixes: For each tree what is known of its prompt, its last token excepted; None where
            nothing is.
        gating: Sets the trees' gates.
    """
    prefixes = prefixes or [None] * len(trees)
    found: dict[int, list[Likelihood]] = {}
    for one in read_trees(model, trees, prefixes, gating):
        flat = [
            (row, place - one.held[row], token)
            for row, tree in enumerate(one.trees)
            for tokens in trees[tree].scored
            for place, token in tokens
        ]
        values = iter(_token_likelihoods(model, one.hidden_BTH, flat))
        for tree in one.trees:
            found[tree] = [
                Likelihood(sum(next(values) for _ in tokens), len(tokens))
                for tokens in trees[tree].scored
            ]
    return [found[tree] for tree in range(len(trees))]


def _token_likelihoods(
    model: Any, hidden_BTH: Tensor, wanted: Sequence[tuple[int, int, int]]
) -> Iterator[float]:
    """The log-probability of each (row, place before it, token)."""
    for first in range(0, len(wanted), _PLACES):
        rows, places, tokens = zip(*wanted[first : first + _PLACES], strict=True)
        scores_NV = model.lm_head(hidden_BTH[list(rows), list(places)]).float()
        tokens_N1 = torch.tensor(tokens, device=scores_NV.device)[:, None]
        chosen_N = scores_NV.gather(-1, tokens_N1)[:, 0] - scores_NV.logsumexp(dim=-1)
        yield from chosen_N.tolist()
