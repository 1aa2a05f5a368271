"""Prepared rows: training rows with everything that does not change during training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from routedk.adapters.experts.lower import lower_hidden
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.training.examples import TrainingRow
from routedk.adapters.training.processes import is_main, place
from routedk.adapters.training.stage import Stage
from routedk.adapters.trees import IGNORED, TokenTree, grow_tree, pad, tree_inputs

_BATCH = 8


@dataclass(frozen=True)
class PreparedRow:
    """A training row with its lower layers computed.

    Args:
        tree: Its tokens.
        hidden_TH: The output of the layers below the experts; empty if there are none.
        pooled_H: What the router sees of the prompt.
        start: Position of the first of the session's own tokens.
    """

    tree: TokenTree
    hidden_TH: Tensor
    pooled_H: Tensor
    start: int


def prepare(routed: RoutedStudent, rows: Sequence[TrainingRow], stage: Stage) -> list[PreparedRow]:
    """Compute the layers below the experts once for each row.

    Args:
        routed: Its layers below the experts are run.
        rows: The rows of one stage.
        stage: Sets the precision.
    """
    trees = [grow_tree(row.prompt.ids, row.lines) for row in rows]

    def compute(places: Sequence[int]) -> list[Tensor]:
        with stage.autocast(routed.device):
            chosen = [trees[k] for k in places]
            return lower_hidden(routed.student.model, chosen, routed.first_layer)

    lengths = [len(tree.input_ids) for tree in trees]
    hidden = computed_together("lower layers", lengths, compute)
    pooled_BH = routed.router_inputs([row.prompt for row in rows]).cpu()
    starts = [row.prompt.span[0] for row in rows]
    return list(map(PreparedRow, trees, hidden, pooled_BH, starts))


def computed_together(
    what: str, lengths: Sequence[int], compute: Callable[[Sequence[int]], list[Tensor]]
) -> list[Tensor]:
    """One tensor per row; each process computes a part of them.

    Args:
        what: Name for the progress bar.
        lengths: Tokens of each row; rows of similar length are computed together.
        compute: Computes the tensors of some rows, given by index.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = [order[first : first + _BATCH] for first in range(0, len(order), _BATCH)]
    number, processes = place()
    mine: dict[int, Tensor] = {}
    for batch in tqdm(batches[number::processes], desc=what, disable=None if is_main() else True):
        mine.update(zip(batch, compute(batch), strict=True))
    computed = {k: tensor for part in gather_object([mine]) for k, tensor in part.items()}
    return [computed[k] for k in range(len(lengths))]


class RowCollator:
    """Packs prepared rows into one batch of token trees.

    Args:
        rows: The prepared rows; the dataset holds only their indices.
    """

    def __init__(self, rows: Sequence[PreparedRow]) -> None:
        self.rows = rows

    def __call__(self, places: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pad and stack; ``pooled`` determines the gates of each row."""
        rows = [self.rows[place["row"]] for place in places]
        inputs = tree_inputs([row.tree for row in rows])
        hidden = [row.hidden_TH for row in rows]
        return {
            **inputs,
            "hidden": nn.utils.rnn.pad_sequence(hidden, batch_first=True),
            "labels": pad([row.tree.labels for row in rows], IGNORED),
            "start": torch.tensor([row.start for row in rows]),
            "pooled": torch.stack([row.pooled_H for row in rows]),
            "present": inputs["branch_ids"] >= 0,
        }


class TargetCollator:
    """Makes batches of what the router sees and the gates that it should output.

    Args:
        rows: The prepared rows.
        targets_NE: Their target gates. *Shape:* (rows, experts).
    """

    def __init__(self, rows: Sequence[PreparedRow], targets_NE: Tensor) -> None:
        self.rows = rows
        self.targets_NE = targets_NE

    def __call__(self, places: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Stack; each row counts as one token, which is present."""
        chosen = [place["row"] for place in places]
        return {
            "pooled": torch.stack([self.rows[k].pooled_H for k in chosen]),
            "targets": self.targets_NE[chosen],
            "present": torch.ones(len(chosen), 1, dtype=torch.bool),
        }
