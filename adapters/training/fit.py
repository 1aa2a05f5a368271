"""Trains one expert, or a router over trained experts, into the files of an artifact."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from routedk.adapters.experts.lower import only_layers
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import SoftmaxRouter
from routedk.adapters.experts.routing_file import ROUTER_FILE
from routedk.adapters.training.examples import TrainingRow
from routedk.adapters.training.objectives import AnswerLoss, Objective, TargetLoss, token_losses
from routedk.adapters.training.plan import RouterTraining
from routedk.adapters.training.processes import is_main
from routedk.adapters.training.router_losses import router_targets
from routedk.adapters.training.rows import (
    PreparedRow,
    RowCollator,
    TargetCollator,
    computed_once,
    prepare,
)
from routedk.adapters.training.stage import Stage
from routedk.adapters.training.trainer import run_stage
from routedk.files import write_json

logger = logging.getLogger(__name__)

RECORD_FILE = "training.json"
_BATCH = 8


def fit_expert(
    routed: RoutedStudent,
    rows: Sequence[TrainingRow],
    stage: Stage,
    out: Path,
    work: Path,
    *,
    save_steps: int,
) -> None:
    """Train the one expert of a student.

    Args:
        routed: Its expert is changed.
        rows: To learn from.
        stage: How to train.
        out: Gets the expert as a plain PEFT folder, and ``training.json``.
        work: Keeps prepared rows and checkpoints; a run cut short there is resumed.
        save_steps: Steps between checkpoints.
    """
    prepared = prepare(routed, rows, work, stage)
    routed.train_experts()
    objective = AnswerLoss(routed, stage)
    collator = RowCollator(prepared)
    curve = run_stage(objective, collator, len(rows), work, stage, save_steps=save_steps)
    if is_main():
        routed.save_experts(out)
        _write_record(out, rows, curve)


def fit_router(
    routed: RoutedStudent,
    rows: Sequence[TrainingRow],
    stage: Stage,
    how: RouterTraining,
    out: Path,
    work: Path,
    *,
    save_steps: int,
) -> None:
    """Train the router of a student, and with ``joint`` its experts.

    Args:
        routed: Its router is changed.
        rows: Prompts of all experts with their answers.
        stage: How to train.
        how: What the router learns from.
        out: Gets ``router.safetensors``, ``training.json`` and, with ``joint``, the experts.
        work: As in `fit_expert`.
        save_steps: Steps between checkpoints.
    """
    prepared = prepare(routed, rows, work, stage)
    pooled_BH = torch.stack([row.pooled_H for row in prepared]).to(routed.device)
    if how.method == "joint":
        routed.train_experts()
    else:
        routed.freeze()
    routed.fusion.requires_grad_(True)
    if isinstance(routed.fusion, SoftmaxRouter):
        routed.fusion.fit_inputs(pooled_BH)
    objective: Objective = AnswerLoss(routed, stage, how)
    collator: Any = RowCollator(prepared)
    tokens = 0
    if how.method == "supervised":
        losses_NE = expert_losses(routed, prepared, work, stage)
        collator = TargetCollator(prepared, router_targets(losses_NE, how.temperature))
        objective = TargetLoss(routed, how)
        tokens = len(routed.adapters) * sum(len(row.tree.input_ids) for row in prepared)
    curve = run_stage(
        objective, collator, len(rows), work, stage, save_steps=save_steps, tokens=tokens
    )
    if is_main():
        if how.method == "joint":
            routed.save_experts(out)
        save_file(routed.fusion.state_dict(), out / ROUTER_FILE)
        _write_record(out, rows, curve, mean_gates=mean_gates(routed, pooled_BH))


def _write_record(
    out: Path, rows: Sequence[TrainingRow], curve: Sequence[Mapping[str, float]], **more: Any
) -> None:
    write_json(out / RECORD_FILE, {"rows": len(rows), "curve": curve, **more})


@torch.no_grad()
def mean_gates(routed: RoutedStudent, pooled_BH: Tensor) -> list[float] | None:
    """The mean gates of these rows; None where gates are not one per session and expert."""
    gates = routed.fusion(pooled_BH)
    if not isinstance(gates, Tensor) or gates.ndim != 2:
        return None
    means: list[float] = gates.mean(dim=0).tolist()
    return means


@torch.no_grad()
def expert_losses(
    routed: RoutedStudent, rows: Sequence[PreparedRow], folder: Path, stage: Stage
) -> Tensor:
    """The loss of each expert alone on each row, per labelled token.

    Args:
        routed: Its experts are run, one by one, by one-hot gates.
        rows: Prompts with their answers, each given to every expert.
        folder: Keeps the losses, as in `prepare`.
        stage: Its precision.

    Returns:
        *Shape:* (rows, experts).
    """
    student = routed.student.model
    collate = RowCollator(rows)
    experts = len(routed.adapters)

    def batch_of(places: Sequence[int]) -> list[Tensor]:
        batch = collate([{"row": k} for k in places])
        batch = {name: tensor.to(routed.device) for name, tensor in batch.items()}
        labels_BT, starts_B = batch["labels"], routed.starts(batch["start"])
        trees = {k: batch[k] for k in ("inputs_embeds", "position_ids", "attention_mask")}
        columns = []
        for one_hot_E in torch.eye(experts, device=routed.device):
            with routed.gate_state.use(one_hot_E.expand(len(places), -1), starts_B):
                losses_N, row_N = token_losses(routed, trees, labels_BT, stage)
            sums_B = losses_N.new_zeros(len(places)).index_add(0, row_N, losses_N)
            columns.append(sums_B / row_N.bincount(minlength=len(places)).clamp(min=1))
        return list(torch.stack(columns, dim=1).cpu())

    def compute(places: Sequence[int]) -> list[Tensor]:
        by_length = sorted(places, key=lambda k: len(rows[k].tree.input_ids))
        found: dict[int, Tensor] = {}
        for first in range(0, len(by_length), _BATCH):
            batch = by_length[first : first + _BATCH]
            found.update(zip(batch, batch_of(batch), strict=True))
        return [found[k] for k in places]

    logger.info("computing the losses of %d experts on %d rows once", experts, len(rows))
    with only_layers(student.model, routed.first_layer, len(student.model.layers)):
        return torch.stack(computed_once(folder / "losses.safetensors", len(rows), compute))
