"""Trains one expert, or a router over trained experts, into the files of an artifact."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import ROUTERS, SoftmaxRouter
from routedk.adapters.experts.routing_file import ROUTER_FILE
from routedk.adapters.training.examples import TrainingRow
from routedk.adapters.training.objectives import AnswerLoss, Objective, TargetLoss, token_losses
from routedk.adapters.training.processes import is_main
from routedk.adapters.training.rows import (
    PreparedRow,
    RowCollator,
    TargetCollator,
    computed_together,
    prepare,
)
from routedk.adapters.training.stage import Stage
from routedk.adapters.training.trainer import run_stage
from routedk.files import write_json

RECORD_FILE = "training.json"


def fit(
    routed: RoutedStudent,
    rows: Sequence[TrainingRow],
    stage: Stage,
    out: Path,
    work: Path,
) -> None:
    """Train the router of a student or, if it has none, its one expert.

    Args:
        routed: The student; it is modified.
        rows: What to learn from; for a router, the rows of all experts.
        stage: How to train.
        out: Gets ``router.safetensors`` or the expert as a plain PEFT folder, and
            ``training.json``.
        work: Keeps checkpoints, from which a killed run resumes.
    """
    prepared = prepare(routed, rows, stage)
    pooled_BH = torch.stack([row.pooled_H for row in prepared]).to(routed.device)
    trains_router = routed.fusion_name in ROUTERS
    if trains_router:
        routed.freeze()
        routed.fusion.requires_grad_(True)
    else:
        routed.train_experts()
    if isinstance(routed.fusion, SoftmaxRouter):
        routed.fusion.fit_inputs(pooled_BH)
    objective: Objective = AnswerLoss(routed, stage)
    collator: Any = RowCollator(prepared)
    if stage.temperature is not None:
        losses_NE = expert_losses(routed, prepared, stage)
        objective = TargetLoss(routed)
        collator = TargetCollator(prepared, (-losses_NE / stage.temperature).softmax(dim=-1))
    curve = run_stage(objective, collator, len(rows), stage, work)
    if is_main():
        if trains_router:
            save_file(routed.fusion.state_dict(), out / ROUTER_FILE)
        else:
            routed.save_experts(out)
        record = {"rows": len(rows), "curve": curve, "mean_gates": mean_gates(routed, pooled_BH)}
        write_json(out / RECORD_FILE, record)


@torch.no_grad()
def mean_gates(routed: RoutedStudent, pooled_BH: Tensor) -> list[float] | None:
    """The mean gates of these rows; None if gates are not one per session and expert."""
    gates = routed.fusion(pooled_BH)
    if not isinstance(gates, Tensor) or gates.ndim != 2:
        return None
    means: list[float] = gates.mean(dim=0).tolist()
    return means


@torch.no_grad()
def expert_losses(routed: RoutedStudent, rows: Sequence[PreparedRow], stage: Stage) -> Tensor:
    """The loss of each expert alone on each row, per labeled token.

    Args:
        routed: Its experts are run, one by one, with one-hot gates.
        rows: Prompts with their answers, each given to every expert.
        stage: Sets the precision.

    Returns:
        *Shape:* (rows, experts).
    """
    collate = RowCollator(rows)
    one_hot_EE = torch.eye(len(routed.adapters), device=routed.device)

    def compute(places: Sequence[int]) -> list[Tensor]:
        batch = {k: v.to(routed.device) for k, v in collate([{"row": k} for k in places]).items()}
        starts_B, columns = routed.starts(batch["start"]), []
        for one_hot_E in one_hot_EE:
            with routed.gate_state.use(one_hot_E.expand(len(places), -1), starts_B):
                losses_N, row_N = token_losses(routed, batch, batch["labels"], stage)
            sums_B = losses_N.new_zeros(len(places)).index_add(0, row_N, losses_N)
            columns.append(sums_B / row_N.bincount(minlength=len(places)).clamp(min=1))
        return list(torch.stack(columns, dim=1).cpu())

    lengths = [len(row.tree.input_ids) for row in rows]
    return torch.stack(computed_together("expert losses", lengths, compute))
