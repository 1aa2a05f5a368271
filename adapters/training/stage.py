"""`Stage`: how one expert, or the router, is trained."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The settings of one training stage.

    Args:
        epochs: Passes over the rows; may be a fraction.
        learning_rate: Peak of the schedule (linear warm-up, then cosine).
        expert_learning_rate: Peak for the experts, where they are trained along with the router.
        batch_size: Rows per step and process.
        share: Share of the rows used, a seeded sample, in (0, 1].
        bf16: Whether a CPU multiplies in bfloat16; None: where it has matrix units for that
            (AMX): a step took three quarters of the time. A GPU's student is in bfloat16 anyway.
        gradient_checkpointing: Whether the layers with experts are recomputed in the backward
            pass instead of kept.
        seed: Of the sample and the order of rows.
    """

    epochs: float
    learning_rate: float
    expert_learning_rate: float | None = None
    batch_size: int
    share: float = 1.0
    bf16: bool | None = None
    gradient_checkpointing: bool = False
    seed: int = 0

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision of products, as a context manager."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.in_bf16(device))

    def in_bf16(self, device: torch.device) -> bool:
        """Whether products are in bfloat16; a GPU's trainer sees to that by itself."""
        if self.bf16 is not None:
            return self.bf16
        return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_tile"))

    def sample(self, rows: Sequence[Row]) -> list[Row]:
        """The rows used, in their order; at least one of a non-empty sequence."""
        count = max(1, round(self.share * len(rows))) if rows else 0
        places = sorted(random.Random(self.seed).sample(range(len(rows)), count))
        return [rows[place] for place in places]
