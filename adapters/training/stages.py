"""Trains experts, then a router, through TRL's SFTTrainer."""

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import LEARNT, SoftmaxRouter
from routedk.adapters.experts.router_inputs import router_input
from routedk.adapters.training.examples import TrainingRow
from routedk.adapters.training.lower import lower_hidden, only_layers
from routedk.adapters.training.processes import divide, is_main, place, wait
from routedk.adapters.training.router_training import RouterTraining, router_targets
from routedk.adapters.training.trainer import (
    AnswerLoss,
    LossBar,
    Objective,
    PreparedRow,
    RoutedTrainer,
    RowCollator,
    TargetCollator,
    TargetLoss,
    token_losses,
)
from routedk.adapters.trees import grow_tree
from routedk.errors import SettingError

__all__ = [
    "PreparedRow",
    "RoutedTrainer",
    "TrainingSettings",
    "expert_losses",
    "prepare",
    "train_experts",
    "train_router",
]

logger = logging.getLogger(__name__)

_HIDDEN = "lower.safetensors"
_LOSSES = "losses.safetensors"
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How one stage (experts or router) is trained.

    Args:
        share: Share of the rows used, a seeded sample, in (0, 1].
        epochs: Passes over these rows; may be a fraction.
        learning_rate: Peak of the schedule (linear warm-up, then cosine).
        batch_size: Rows per step and process.
        warmup_steps: Steps of linear warm-up, at most half of all: short runs learn, too.
        save_steps: Steps between checkpoints to resume from.
        seed: Order of rows.
        bf16: Whether a CPU multiplies in bfloat16; None: where it has matrix units for that
            (AMX): a step took three quarters of the time. A GPU's student is in bfloat16 anyway.
        gradient_checkpointing: Whether the layers with experts are computed again in the backward
            pass instead of kept: less memory, more time, the same gradients.
    """

    share: float = 1.0
    epochs: float = 1.0
    learning_rate: float = 5e-4
    batch_size: int = 8
    warmup_steps: int = 5
    save_steps: int = 25
    seed: int = 0
    bf16: bool | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise SettingError(f"warmup_steps={self.warmup_steps}: must be at least 0")
        for name in ("epochs", "learning_rate", "batch_size", "save_steps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SettingError(f"{name}={value!r}: must be above 0 and finite")
        if not 0 < self.share <= 1:
            raise SettingError(f"share={self.share!r}: must be above 0 and at most 1")

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision of products, as a context manager."""
        auto = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
        enabled = auto if self.bf16 is None else self.bf16
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)

    def sample(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """The rows used, in their order; at least one of a non-empty sequence."""
        count = max(1, round(self.share * len(rows))) if rows else 0
        places = sorted(random.Random(self.seed).sample(range(len(rows)), count))
        return [rows[place] for place in places]


def prepare(
    routed: RoutedStudent,
    rows: Sequence[TrainingRow],
    folder: Path,
    settings: TrainingSettings,
) -> list[PreparedRow]:
    """Compute once what the layers below the experts make of each row.

    Args:
        routed: Its layers below the experts are run.
        rows: The rows of one stage.
        folder: Keeps what was computed, for a run that resumes this stage; it must be of the
            same rows.
        settings: Of the stage: its precision.
    """
    trees = [grow_tree(row.prompt, row.lines) for row in rows]

    def compute(places: Sequence[int]) -> list[Tensor]:
        decoder, pad_id = routed.student.model.model, routed.tokenizer.pad_token_id
        mine = [trees[k] for k in places]
        with settings.autocast(routed.device):
            return lower_hidden(decoder, mine, routed.first_layer, pad_id, progress=is_main())

    def all_rows() -> list[Tensor]:
        logger.info("computing the lower layers of %d rows once", len(rows))
        return divide(len(rows), compute)

    hidden = _kept(folder / _HIDDEN, len(rows), all_rows)
    looks_at = router_input(routed.settings.router_input)
    embed = routed.student.model.get_input_embeddings()
    prepared = []
    for row, tree, hidden_TH in zip(rows, trees, hidden, strict=True):
        vectors_TH = hidden_TH
        if not looks_at.hidden:
            vectors_TH = embed(torch.tensor(row.prompt, device=routed.device)).detach()
        pooled_H = looks_at.pool(vectors_TH, row.span, len(row.prompt)).cpu()
        prepared.append(PreparedRow(tree, hidden_TH, pooled_H, row.expert, row.span[0]))
    return prepared


def _kept(path: Path, count: int, compute: Any) -> list[Tensor]:
    """Tensors from a file, or computed and kept there."""
    wait()
    if path.exists():
        tensors = load_file(path)
        return [tensors[str(place)] for place in range(count)]
    found: list[Tensor] = compute()
    if is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({str(place): row for place, row in enumerate(found)}, f"{path}.new")
        Path(f"{path}.new").replace(path)
    return found


def train_experts(
    routed: RoutedStudent,
    rows: Sequence[PreparedRow],
    folder: Path,
    settings: TrainingSettings,
    *,
    only: str | None = None,
) -> list[dict[str, float]]:
    """Train experts in one run, each on its own rows, by one-hot gates.

    Args:
        routed: Its experts are changed.
        rows: Rows of all experts that are trained.
        folder: For checkpoints and the loss curve; a run cut short there is resumed.
        settings: How to train.
        only: The one expert to train; None for all.

    Returns:
        The loss curve: per step ``step``, ``loss`` per token, and ``tokens`` seen so far.
    """
    routed.train_experts(None if only is None else [only])
    objective = AnswerLoss(routed, partial(settings.autocast, routed.device))
    return _train(routed, objective, len(rows), RowCollator(rows), folder, settings)


def train_router(
    routed: RoutedStudent,
    rows: Sequence[PreparedRow],
    folder: Path,
    settings: TrainingSettings,
    how: RouterTraining | None = None,
) -> list[dict[str, float]]:
    """Train the router; arguments and result as in `train_experts`.

    Args:
        routed: Its router is changed, and by ``joint`` its experts.
        rows: Prompts with their answers; which expert they were made for does not count.
        folder: As in `train_experts`.
        settings: How to train.
        how: What the router learns from.

    Raises:
        SettingError: The fusion has nothing to train, or cannot be trained so.
    """
    how = how or RouterTraining()
    if not list(routed.fusion.parameters()):
        raise SettingError(
            f"fusion {routed.fusion_name!r} has nothing to train: {', '.join(LEARNT)} have"
        )
    how.check(routed.fusion_name, len(routed.adapters))
    objective: Objective = AnswerLoss(routed, partial(settings.autocast, routed.device), how)
    collator: Any = RowCollator(rows)
    tokens = 0
    routed.model.requires_grad_(False)
    if how.method == "joint":
        routed.train_experts()
    else:
        routed.freeze()
    if how.method == "supervised":
        losses_NE = expert_losses(routed, rows, folder, settings)
        collator = TargetCollator(rows, router_targets(losses_NE, how.temperature))
        objective = TargetLoss(routed, how)
        tokens = len(routed.adapters) * sum(len(row.tree.input_ids) for row in rows)
    routed.fusion.requires_grad_(True)
    if isinstance(routed.fusion, SoftmaxRouter):
        pooled_BH = torch.stack([row.pooled_H for row in rows])
        routed.fusion.fit_inputs(pooled_BH.to(routed.device))
    # A submodule, so that the trainer's optimizer and checkpoints see its parameters.
    routed.model.router = routed.fusion
    rate = how.expert_learning_rate if how.method == "joint" else None
    try:
        return _train(routed, objective, len(rows), collator, folder, settings, rate, tokens)
    finally:
        del routed.model.router


@torch.no_grad()
def expert_losses(
    routed: RoutedStudent, rows: Sequence[PreparedRow], folder: Path, settings: TrainingSettings
) -> Tensor:
    """What each expert alone loses on each row, per labelled token.

    Args:
        routed: Its experts are run, one by one, by one-hot gates.
        rows: Prompts with their answers, each given to every expert.
        folder: Keeps what was computed, as in `prepare`.
        settings: Of the stage: its precision.

    Returns:
        *Shape:* (rows, experts).
    """
    student = routed.student.model
    collate = RowCollator(rows)
    experts = len(routed.adapters)
    autocast = partial(settings.autocast, routed.device)

    def batch_of(places: Sequence[int]) -> list[Tensor]:
        batch = collate([{"row": k} for k in places])
        batch = {name: tensor.to(routed.device) for name, tensor in batch.items()}
        labels_BT = batch.pop("labels")
        trees = {k: batch[k] for k in ("inputs_embeds", "position_ids", "attention_mask")}
        columns = []
        starts_B = routed.starts(batch["start"])
        for one_hot_E in torch.eye(experts, device=routed.device):
            with routed.gate_state.use(one_hot_E.expand(len(places), -1), starts_B):
                losses_N, row_N = token_losses(routed, trees, labels_BT, autocast)
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

    def all_rows() -> list[Tensor]:
        logger.info("computing the losses of %d experts on %d rows once", experts, len(rows))
        with only_layers(student.model, routed.first_layer, len(student.model.layers)):
            return divide(len(rows), compute)

    return torch.stack(_kept(folder / _LOSSES, len(rows), all_rows))


def _steps(count: int, settings: TrainingSettings) -> int:
    """Steps of a stage of so many rows."""
    batches = math.ceil(count / (settings.batch_size * place()[1]))
    return math.ceil(settings.epochs * batches)


def _train(
    routed: RoutedStudent,
    objective: Objective,
    count: int,
    collator: Any,
    folder: Path,
    settings: TrainingSettings,
    expert_learning_rate: float | None = None,
    tokens: int = 0,
) -> list[dict[str, float]]:
    on_cpu = routed.device.type == "cpu"
    arguments = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        warmup_steps=min(settings.warmup_steps, _steps(count, settings) // 2),
        lr_scheduler_type="cosine",
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=None,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        save_steps=settings.save_steps,
        save_total_limit=1,
        use_cpu=on_cpu,
        bf16=not on_cpu,
        activation_checkpointing=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=False,  # else, where transformers is quiet, steps are printed on stdout
        log_level_replica="error",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    student: PreTrainedModel = routed.student.model
    checkpoint = _last_checkpoint(Path(arguments.output_dir))
    try:
        with only_layers(student.model, routed.first_layer, len(student.model.layers)):
            if settings.gradient_checkpointing:
                student.activation_checkpointing_enable({"use_reentrant": False})
            trainer = RoutedTrainer(
                routed,
                objective,
                expert_learning_rate=expert_learning_rate,
                args=arguments,
                train_dataset=Dataset.from_dict({"row": list(range(count))}),
                data_collator=collator,
                processing_class=routed.tokenizer,
            )
            trainer.tokens_seen = tokens
            trainer.remove_callback(ProgressCallback)
            trainer.add_callback(LossBar)
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        routed.gate_state.gates = routed.gate_state.starts = None
        student.activation_checkpointing_disable()
        # The trainer's way around the student, and what accelerate wraps a GPU's model in.
        for model in (student, routed.model):
            model.__dict__.pop("forward", None)
        routed.model.eval()
        routed.model.requires_grad_(False)
    return [
        {"step": record["step"], "loss": record["loss"], "tokens": int(record["num_tokens"])}
        for record in trainer.state.log_history
        if "loss" in record
    ]


def _last_checkpoint(folder: Path) -> str | None:
    checkpoint = get_last_checkpoint(str(folder)) if folder.exists() else None
    if checkpoint:
        logger.info("resuming from %s", checkpoint)
    return checkpoint
