"""Decoding along the branches of token trees: many completions of one prompt, computed as one row.

The prompt's keys and values are held once per session, however many completions it has, and each
step computes one token of every completion that is not yet finished. What is known of a prompt's
beginning is not computed again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from routedk.adapters.engine.kv_cache import Prefix
from routedk.adapters.engine.packed_attention import packed_attention
from routedk.adapters.engine.passes import (
    NOTHING,
    Gating,
    Pass,
    Row,
    join,
    no_gates,
    read_trees,
)
from routedk.adapters.trees import TokenTree, branch_mask, grow_tree, pad

# Steps for which there is room from the start: intents are short. Later steps copy what is held.
_ROOM = 8


@dataclass
class Branch:
    """One completion as it is written.

    Args:
        row: Which tree it belongs to.
        stem: Which of the tree's branches it goes on from, counted from 1.
        draw: Which completion of this branch it is, counted from 0.
        number: Its own number among the tree's branches.
        position: The position of its next token.
        written: Its new tokens so far.
    """

    row: int
    stem: int
    draw: int
    number: int
    position: int
    written: list[int] = field(default_factory=list)


@torch.inference_mode()
def decode_branches(
    model: Any,
    trees: Sequence[TokenTree],
    choose: Callable[[Sequence[Branch], Tensor], Sequence[int]],
    *,
    end: int,
    max_tokens: int,
    draws: int | Sequence[int] = 1,
    prefixes: Sequence[Prefix | None] | None = None,
    gating: Gating = no_gates,
    goes_on: Callable[[Branch], bool] | None = None,
    told: Callable[[int, Row], None] | None = None,
) -> list[list[Branch]]:
    """Write on from the end of every branch until its end token.

    Args:
        model: A causal LM of transformers with ``model`` and ``lm_head``.
        trees: Prompts with the given beginnings of their branches, each branch not empty.
        choose: Gets the branches still open and their next-token scores, *shape* (branches,
            vocabulary), which it may overwrite, and says each one's next token.
        end: The token that ends a branch; it is written, too.
        max_tokens: New tokens per branch at most, at least 1.
        draws: Completions of each branch; one number, or one per tree.
        prefixes: For each tree what is known of its prompt's first tokens; None where nothing is.
        gating: Sets the trees' gates.
        goes_on: Asked of each branch after each of its tokens, once; false ends it.
        told: Told what was made of each tree before anything is written.

    Returns:
        For each tree its completions: those of the first branch, those of the second, and so on.
    """
    counts = [draws] * len(trees) if isinstance(draws, int) else draws
    grown = [_sprout(k, tree, n) for k, (tree, n) in enumerate(zip(trees, counts, strict=True))]
    open_ = [branch for branches in grown for branch, _ in branches]
    hidden_NH, cache, members_BT = _begin(
        read_trees(model, trees, prefixes or [None] * len(trees), gating),
        [place for branches in grown for _, place in branches],
        open_,
        room=max(map(len, grown)) * min(max_tokens, _ROOM),
        told=told,
    )
    with packed_attention(model), gating(range(len(trees))):
        for step in range(max_tokens):
            tokens = choose(open_, model.lm_head(hidden_NH))
            for branch, token in zip(open_, tokens, strict=True):
                branch.written.append(token)
            wanted = [goes_on is None or goes_on(branch) for branch in open_]
            open_ = [
                branch
                for branch, want in zip(open_, wanted, strict=True)
                if want and branch.written[-1] != end
            ]
            if not open_ or step + 1 == max_tokens:
                break
            hidden_NH, members_BT = _advance(model, cache, open_, members_BT)
    return [[branch for branch, _ in branches] for branches in grown]


@torch.inference_mode()
def compute_prefixes(
    model: Any,
    prompts: Sequence[Sequence[int]],
    known: Sequence[Prefix | None],
    gating: Gating = no_gates,
) -> list[Prefix]:
    """The keys and values of prompts' first tokens.

    Args:
        model: As in `decode_branches`.
        prompts: The tokens of each.
        known: Those of the first of them; None where nothing is known.
        gating: Sets the prompts' gates.
    """
    found: dict[int, Prefix] = {}
    for one in read_trees(model, [grow_tree(ids, []) for ids in prompts], known, gating):
        for place, tree in enumerate(one.trees):
            found[tree] = one.row(place).prompt(prompts[tree])
    return [found[tree] for tree in range(len(prompts))]


def _begin(
    passes: Iterable[Pass],
    places: Sequence[int],
    branches: Sequence[Branch],
    *,
    room: int,
    told: Callable[[int, Row], None] | None,
) -> tuple[Tensor, Cache, Tensor]:
    """Read the trees, and keep no more of the passes than is needed to go on.

    Args:
        passes: Over all trees.
        places: Where in its tree each branch goes on.
        branches: The branches.
        room: As in `start_cache`.
        told: As in `decode_branches`.

    Returns:
        The hidden states that the branches go on from, *shape* (branches, hidden); one cache of
        all trees, in their order; and the members of what it holds.
    """
    rows = {tree: one.row(k) for one in passes for k, tree in enumerate(one.trees)}
    ordered = [rows[tree] for tree in range(len(rows))]
    if told is not None:
        for tree, row in enumerate(ordered):
            told(tree, row)
    cache, members_BT = join(ordered, room)
    # The last tokens of a row are those that were read: places are counted from its end.
    hidden = [
        ordered[branch.row].hidden_TH[place - len(ordered[branch.row].members)]
        for branch, place in zip(branches, places, strict=True)
    ]
    return torch.stack(hidden), cache, members_BT


def _sprout(row: int, tree: TokenTree, draws: int) -> list[tuple[Branch, int]]:
    """The completions of a tree's branches, each with the place of the token it goes on from."""
    ends = {stem: place for place, stem in enumerate(tree.branch_ids) if stem > 0}
    after = {stem: tree.position_ids[place] + 1 for stem, place in ends.items()}
    return [
        (
            Branch(row, stem, draw, len(ends) + draws * (stem - 1) + draw + 1, after[stem]),
            place,
        )
        for stem, place in ends.items()
        for draw in range(draws)
    ]


def _advance(
    model: Any, cache: Cache, open_: Sequence[Branch], members_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the last token of each open branch.

    Returns:
        The hidden states of these tokens, *shape* (branches, hidden), and the members of what
        the cache now holds.
    """
    columns: list[list[Branch]] = [[] for _ in range(len(members_BT))]
    places = []
    for branch in open_:
        places.append((branch.row, len(columns[branch.row])))
        columns[branch.row].append(branch)
    device = members_BT.device
    own_BL = pad([[b.number for b in row] for row in columns], NOTHING).to(device)
    stems_BL = pad([[b.stem for b in row] for row in columns], NOTHING).to(device)
    members_BT = torch.cat([members_BT, own_BL], dim=1)
    hidden_BLH = model.model(
        input_ids=pad([[b.written[-1] for b in row] for row in columns], 0).to(device),
        position_ids=pad([[b.position for b in row] for row in columns], 0).to(device),
        attention_mask=branch_mask(members_BT, own_BL, stems_BL, model.dtype),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    for branch in open_:
        branch.position += 1
    rows, mine = zip(*places, strict=True)
    return hidden_BLH[list(rows), list(mine)], members_BT
