"""Token trees: one prompt and several completions of it, computed in one row.

The lines of a student's thought are completions of one prompt that do not see each other. Packed
as a tree, the prompt is computed once; each branch attends only to the prompt and to itself, at
the positions it would have alone, so the result equals that of separate rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import get_layer_types_and_kwargs

from routedk.errors import StudentError

IGNORED = -100
# Layer types, as transformers names them.
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Branches packed after their common prompt; all lists have one entry per token.

    Args:
        input_ids: Token ids: the prompt, then each branch.
        position_ids: The position of each token in its own sequence.
        branch_ids: 0 for the prompt, k for the k-th branch.
        labels: The token itself if it is to be learned, else ``IGNORED``.
    """

    input_ids: list[int]
    position_ids: list[int]
    branch_ids: list[int]
    labels: list[int]


def grow_tree(prompt: Sequence[int], branches: Sequence[tuple[Sequence[int], int]]) -> TokenTree:
    """Pack branches after their prompt.

    Args:
        prompt: Token ids of the prompt.
        branches: Token ids of each branch, and how many of them at its beginning are given
            rather than learned; at least 1 if there are several branches, since the prompt's last
            token cannot predict the first token of every branch.
    """
    start = len(prompt)
    ids, positions, members = list(prompt), list(range(start)), [0] * start
    labels = [IGNORED] * start
    for number, (branch, given) in enumerate(branches, start=1):
        ids += branch
        positions += range(start, start + len(branch))
        members += [number] * len(branch)
        labels += [IGNORED] * given + list(branch[given:])
    return TokenTree(ids, positions, members, labels)


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of unequal length as one tensor, padded on the right; *shape* (batch, tokens)."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def tree_inputs(trees: Sequence[TokenTree]) -> dict[str, Tensor]:
    """A batch of trees: ``input_ids``, ``position_ids`` and, -1 for padding, ``branch_ids``."""
    return {
        "input_ids": pad([tree.input_ids for tree in trees], 0),
        "position_ids": pad([tree.position_ids for tree in trees], 0),
        "branch_ids": pad([tree.branch_ids for tree in trees], -1),
    }


def tree_masks(
    model: Any, branch_ids_BT: Tensor, position_ids_BT: Tensor, stems_BQ: Tensor | None = None
) -> Tensor | dict[str, Tensor]:
    """The additive attention masks for the last tokens of a batch of trees, as the student expects.

    A token sees itself and earlier tokens of the prompt, of its own branch and of its stem; in a
    sliding layer, only those within its window.

    Args:
        model: The student's.
        branch_ids_BT: Of all tokens: 0 for a prompt token, k for branch k, -1 for padding.
            *Shape:* (batch, tokens).
        position_ids_BT: Of all tokens, each in its own sequence. *Shape:* (batch, tokens).
        stems_BQ: For each of the last tokens, the branch that its branch continues, or its own if
            that starts at the prompt; None if all do. *Shape:* (batch, queries).

    Returns:
        0 where attention is allowed, the lowest finite number elsewhere, *shape* (batch, 1,
        queries, tokens); a dict by layer type if the student has layer types.
    """
    config, stems_BQ = model.config, branch_ids_BT if stems_BQ is None else stems_BQ
    tokens, queries = branch_ids_BT.shape[1], stems_BQ.shape[1]
    key_B1T, own_BQ1 = branch_ids_BT[:, None], branch_ids_BT[:, -queries:, None]
    in_sight_BQT = (key_B1T == 0) | (key_B1T == own_BQ1) | (key_B1T == stems_BQ[:, :, None])
    all_QT = torch.ones(queries, tokens, dtype=torch.bool, device=branch_ids_BT.device)
    seen_BQT = in_sight_BQT & all_QT.tril(diagonal=tokens - queries)
    # The same rule as in `transformers.masking_utils.create_masks_for_generate`.
    kinds: Any = getattr(config, "layer_types", None)
    window: Any = getattr(config, "sliding_window", None)
    masks = {}
    for kind in set(kinds or [FULL if window is None else SLIDING]):
        allowed_BQT = seen_BQT
        if kind == SLIDING:
            oldest_BQ1 = position_ids_BT[:, -queries:, None] - window
            allowed_BQT = seen_BQT & (position_ids_BT[:, None] > oldest_BQ1)
        mask_BQT = torch.zeros(seen_BQT.shape, dtype=model.dtype, device=seen_BQT.device)
        mask_BQT.masked_fill_(~allowed_BQT, torch.finfo(model.dtype).min)
        masks[kind] = mask_BQT[:, None]
    return masks if kinds else masks[kind]


def check_trees(model: Any) -> None:
    """Check that a student can read trees.

    Raises:
        StudentError: Its layers are not where they are expected, or attend in another way.
    """
    kind, layers = type(model).__name__, getattr(model.base_model, "layers", None)
    if layers is None:
        raise StudentError(
            f"a {kind} has no decoder layers under {model.base_model_prefix}.layers: use a student "
            "like Llama, Qwen or SmolLM2"
        )
    if other := set(get_layer_types_and_kwargs(model.config)[0]) - {FULL, SLIDING}:
        raise StudentError(
            f"a {kind} has layers of {', '.join(sorted(other))}, which cannot share a prompt among "
            "completions: use a student with attention in all layers, like Llama, Qwen or SmolLM2"
        )
