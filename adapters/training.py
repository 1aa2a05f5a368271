"""Trains experts, then a router, through TRL's SFTTrainer."""

import json
import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from routedk.adapters.examples import TrainingRow
from routedk.adapters.lower import lower_hidden, only_layers
from routedk.adapters.routed import RoutedStudent
from routedk.adapters.router import LEARNT, SoftmaxRouter
from routedk.adapters.trees import IGNORED, TokenTree, grow_tree, pad, tree_mask
from routedk.errors import SettingError

logger = logging.getLogger(__name__)

_WEIGHTS = "trained.safetensors"
_HIDDEN = "lower.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How one stage (experts or router) is trained.

    Args:
        share: Share of the rows used, a seeded sample, in (0, 1].
        epochs: Passes over these rows; may be a fraction.
        learning_rate: Peak of the schedule (linear warm-up, then cosine).
        batch_size: Rows per step.
        warmup_steps: Steps of linear warm-up.
        save_steps: Steps between checkpoints to resume from.
        seed: Order of rows.
        bf16: Whether a CPU multiplies in bfloat16; None: where it has matrix units for that
            (AMX): a step took three quarters of the time. A GPU's student is in bfloat16 anyway.
    """

    share: float = 1.0
    epochs: float = 1.0
    learning_rate: float = 5e-4
    batch_size: int = 8
    warmup_steps: int = 5
    save_steps: int = 25
    seed: int = 0
    bf16: bool | None = None

    def __post_init__(self) -> None:
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


@dataclass(frozen=True)
class PreparedRow:
    """A training row with everything that does not change while it is trained on.

    Args:
        tree: Its tokens.
        hidden_TH: What the layers below the experts make of them.
        pooled_H: Mean input embedding of the session's tokens, for the router.
        expert: Place of its expert among the gates.
    """

    tree: TokenTree
    hidden_TH: Tensor
    pooled_H: Tensor
    expert: int


class RowCollator:
    """Packs prepared rows into one batch of token trees.

    Args:
        rows: The prepared rows; the dataset holds their places only.
    """

    def __init__(self, rows: Sequence[PreparedRow]) -> None:
        self.rows = rows

    def __call__(self, places: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pad and stack; ``expert`` and ``pooled`` tell how to gate each row."""
        rows = [self.rows[place["row"]] for place in places]
        hidden = [row.hidden_TH for row in rows]
        members = pad([row.tree.branch_ids for row in rows], -1)
        return {
            "inputs_embeds": nn.utils.rnn.pad_sequence(hidden, batch_first=True),
            "position_ids": pad([row.tree.position_ids for row in rows], 0),
            "labels": pad([row.tree.labels for row in rows], IGNORED),
            "attention_mask": tree_mask(members, hidden[0].dtype),
            "expert": torch.tensor([row.expert for row in rows]),
            "pooled": torch.stack([row.pooled_H for row in rows]),
            "tokens": torch.tensor(sum(len(row.tree.input_ids) for row in rows)),
        }


class LossBar(ProgressCallback):  # type: ignore[misc]  # transformers is untyped here
    """The trainer's progress bar, with the loss beside it instead of a line per step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Show the latest loss."""
        if self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


class RoutedTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """SFTTrainer with gates: one-hot per row for experts, the router's for the router stage.

    Checkpoints hold the trained tensors only (all experts, or the router), as safetensors.
    """

    def __init__(
        self,
        routed: RoutedStudent,
        settings: TrainingSettings,
        *,
        train_router: bool,
        **kwargs: Any,
    ) -> None:
        self.routed = routed
        self.settings = settings
        self.train_router = train_router
        self.tokens_seen = 0
        super().__init__(model=routed.model, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor:
        """Mean cross-entropy of the labelled tokens under each row's gates.

        The vocabulary's logits are computed at labelled tokens only; TRL's own loss computes
        them at all tokens, which here costs more than the layers that are trained.
        """
        experts_B, pooled_BH = inputs.pop("expert"), inputs.pop("pooled")
        self.tokens_seen += int(inputs.pop("tokens"))
        if self.train_router:
            gates = self.routed.fusion(pooled_BH)
        else:
            count = len(self.routed.adapters)
            gates = nn.functional.one_hot(experts_B, count).float()
        # Not a context manager: the gates are needed through the backward pass, too.
        self.routed.gate_state.gates = gates
        next_BT = inputs.pop("labels")[:, 1:]
        student = self.routed.student.model
        learnt_BT = next_BT != IGNORED
        with self.settings.autocast(self.routed.device):
            hidden_BTH = student.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
            logits_NV = student.lm_head(hidden_BTH[learnt_BT])
        self._metrics["train"]["num_tokens"] = [self.tokens_seen]
        return nn.functional.cross_entropy(logits_NV.float(), next_BT[learnt_BT])

    def _trained(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().contiguous() for name, tensor in self._trained().items()}
        save_file(tensors, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        for name, parameter in self._trained().items():
            parameter.data.copy_(saved[name])
        state = json.loads((Path(resume_from_checkpoint) / "trainer_state.json").read_text())
        self.tokens_seen = int(state["log_history"][-1]["num_tokens"])


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
    kept = folder / _HIDDEN
    if kept.exists():
        tensors = load_file(kept)
        hidden = [tensors[str(place)] for place in range(len(rows))]
    else:
        logger.info("computing the lower layers of %d rows once", len(rows))
        decoder = routed.student.model.model
        with settings.autocast(routed.device):
            hidden = lower_hidden(decoder, trees, routed.first_layer, routed.tokenizer.pad_token_id)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({str(place): row for place, row in enumerate(hidden)}, f"{kept}.new")
        Path(f"{kept}.new").replace(kept)
    prepared = []
    for row, tree, hidden_TH in zip(rows, trees, hidden, strict=True):
        ids = torch.tensor([tree.input_ids], device=routed.device)
        pooled_H = routed.pool(ids, [row.span])[0].detach().cpu()
        prepared.append(PreparedRow(tree, hidden_TH, pooled_H, row.expert))
    return prepared


def train_experts(
    routed: RoutedStudent, rows: Sequence[PreparedRow], folder: Path, settings: TrainingSettings
) -> list[dict[str, float]]:
    """Train all experts in one run, each on its own rows, by one-hot gates.

    Args:
        routed: Its experts are changed.
        rows: Rows of all experts.
        folder: For checkpoints and the loss curve; a run cut short there is resumed.
        settings: How to train.

    Returns:
        The loss curve: per step ``step``, ``loss`` per token, and ``tokens`` seen so far.
    """
    routed.train_experts()
    return _train(routed, rows, folder, settings, train_router=False)


def train_router(
    routed: RoutedStudent, rows: Sequence[PreparedRow], folder: Path, settings: TrainingSettings
) -> list[dict[str, float]]:
    """Train the router with the experts frozen; arguments as in `train_experts`."""
    if not list(routed.fusion.parameters()):
        raise SettingError(
            f"fusion {routed.fusion_name!r} has nothing to train: {', '.join(LEARNT)} have"
        )
    routed.model.requires_grad_(False)
    routed.freeze()
    routed.fusion.requires_grad_(True)
    if isinstance(routed.fusion, SoftmaxRouter):
        pooled_BH = torch.stack([row.pooled_H for row in rows])
        routed.fusion.fit_inputs(pooled_BH.to(routed.device))
    # A submodule, so that the trainer's optimizer and checkpoints see its parameters.
    routed.model.router = routed.fusion
    try:
        return _train(routed, rows, folder, settings, train_router=True)
    finally:
        del routed.model.router


def _train(
    routed: RoutedStudent,
    rows: Sequence[PreparedRow],
    folder: Path,
    settings: TrainingSettings,
    *,
    train_router: bool,
) -> list[dict[str, float]]:
    on_cpu = routed.device.type == "cpu"
    arguments = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        warmup_steps=settings.warmup_steps,
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
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    student: PreTrainedModel = routed.student.model
    checkpoint = _last_checkpoint(Path(arguments.output_dir))
    try:
        with only_layers(student.model, routed.first_layer, len(student.model.layers)):
            trainer = RoutedTrainer(
                routed,
                settings,
                train_router=train_router,
                args=arguments,
                train_dataset=Dataset.from_dict({"row": list(range(len(rows)))}),
                data_collator=RowCollator(rows),
                processing_class=routed.tokenizer,
            )
            trainer.remove_callback(ProgressCallback)
            trainer.add_callback(LossBar)
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        routed.gate_state.gates = None
        # TRL leaves the base model's forward patched with its chunked loss.
        student.__dict__.pop("forward", None)
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
