"""`TrialSettings`: what one trial of a search distills, trains and shows."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class TrialSettings(BaseModel):
    """Everything that distinguishes one trial from another.

    `SearchSpace.suggest` makes them, and only combinations in which each part has a use.

    Args:
        utilization: Where knowledge is used: in prompts (``ICL``), in training (``SFT``) or both.
        formats: Formats of the knowledge that is used, in the order pattern, rule, thought.
        strategy: How the training sessions that knowledge is distilled from are sampled.
        ratio: Share of them, in (0, 1].
        experts: Experts that are trained, base first; None under ``ICL``.
        fusion: How they are fused; ``single:NAME`` uses one of them alone.
        r: Rank of each expert.
        learning_rate: Peak learning rate of the base expert.
        epochs: Passes of the base expert over its rows.
        neighbours: Similar training sessions in the prompt, with their thoughts where the formats
            hold thoughts.
        rules: Rules in the prompt, those nearest to the session.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    utilization: str = "ICL"
    formats: tuple[str, ...] = ()
    strategy: str = "random"
    ratio: float = 1.0
    experts: tuple[str, ...] | None = None
    fusion: str | None = None
    r: int | None = None
    learning_rate: float | None = None
    epochs: float | None = None
    neighbours: int = 0
    rules: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The settings ready for JSON; ``TrialSettings(**...)`` restores them."""
        return self.model_dump(mode="json")


def in_words(settings: Mapping[str, Any]) -> str:
    """`TrialSettings.to_dict` on one line: what the trial has, sets joined by ``+``."""
    shown = {
        name: "+".join(value) or "none" if isinstance(value, list) else value
        for name, value in settings.items()
        if value is not None
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())
