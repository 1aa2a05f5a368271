"""`Stage`: how one expert, or the router, is trained."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from routedk.adapters.train import TrainConfig

Row = TypeVar("Row")

# Share of rows, epochs and minimum batch size by router training. A step of `supervised` runs no
# model: it can afford all rows, many times, in large batches.
ROUTER_DEFAULTS = {"answer": (0.1, 2.0, 1), "supervised": (1.0, 10.0, 32)}
_ROUTER_RATE = 2e-2
# For the first expert, if epochs are unset. A choice for two CPU cores, not a measured optimum.
_ROWS_SHOWN, _MOST_EPOCHS = 2500, 6.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Settings that differ between the stages of a training run.

    Args:
        share: Share of the rows used, a seeded sample, in (0, 1].
        epochs: Passes over these rows; may be a fraction.
        learning_rate: Peak of the schedule (linear warm-up, then cosine).
        batch_size: Rows per step and process.
        temperature: Temperature of supervised router training; None if the answer is learned.
        bf16: Whether a CPU multiplies in bfloat16.
        gradient_checkpointing: Whether the layers with experts are recomputed in the backward
            pass.
        save_steps: Steps between checkpoints.
        seed: Seed of the sample and the order of rows.
    """

    share: float
    epochs: float
    learning_rate: float
    batch_size: int
    temperature: float | None = None
    bf16: bool
    gradient_checkpointing: bool
    save_steps: int
    seed: int

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision of products, as a context manager."""
        enabled = self.bf16 and device.type == "cpu"  # The trainer handles a GPU's.
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)

    def sample(self, rows: Sequence[Row]) -> list[Row]:
        """The rows used, in their order; at least one of a non-empty sequence."""
        count = max(1, round(self.share * len(rows))) if rows else 0
        places = sorted(random.Random(self.seed).sample(range(len(rows)), count))
        return [rows[place] for place in places]


def expert_stage(config: "TrainConfig", *, first: bool, rows: int = 0) -> Stage:
    """How an expert is trained: the first one, or one that starts from its weights.

    Args:
        config: The config of the training.
        first: Whether it is the first one.
        rows: How many rows it may learn from.
    """
    unset = min(_MOST_EPOCHS, max(1.0, float(round(_ROWS_SHOWN / max(rows, 1)))))
    # With matrix units for bfloat16 (AMX) a step took three quarters of the time.
    has_units = bool(torch.cpu.get_capabilities().get("amx_tile"))
    return Stage(
        share=1.0 if first else config.knowledge_share,
        epochs=(config.epochs or unset) if first else config.knowledge_epochs,
        learning_rate=config.learning_rate / (1 if first else 2),
        batch_size=config.batch_size,
        bf16=has_units if config.bf16 is None else config.bf16,
        gradient_checkpointing=config.gradient_checkpointing,
        save_steps=config.save_steps,
        seed=config.seed,
    )


def router_stage(config: "TrainConfig") -> Stage:
    """How the router is trained."""
    share, epochs, least_batch = ROUTER_DEFAULTS[config.router_training]
    return replace(
        expert_stage(config, first=True),
        share=config.router_share or share,
        epochs=config.router_epochs or epochs,
        learning_rate=_ROUTER_RATE,
        batch_size=max(config.batch_size, least_batch),
        temperature=config.temperature if config.router_training == "supervised" else None,
    )
