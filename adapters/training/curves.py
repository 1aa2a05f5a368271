"""Loss curves as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def plot_losses(curve: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the training loss over steps, one panel per stage, as a PNG.

    Args:
        curve: Records with ``stage``, ``step`` and ``loss``.
        path: Where to write it.
    """
    from matplotlib.figure import Figure

    stages = list(dict.fromkeys(str(record["stage"]) for record in curve))
    figure = Figure(figsize=(4 * max(1, len(stages)), 3), layout="constrained")
    for place, stage in enumerate(stages, start=1):
        axes = figure.add_subplot(1, len(stages), place)
        mine = [record for record in curve if record["stage"] == stage]
        axes.plot([r["step"] for r in mine], [r["loss"] for r in mine], linewidth=1)
        axes.set(title=stage, xlabel="step", ylabel="loss per token")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
