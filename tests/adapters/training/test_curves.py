from pathlib import Path

import pytest

from routedk.adapters.training.curves import plot_losses


@pytest.mark.parametrize("stages", [[], ["base"], ["base", "knowledge", "router"]])
def test_a_panel_per_stage(tmp_path: Path, stages: list[str]) -> None:
    curve = [{"stage": name, "step": k, "loss": 1.0 / (k + 1)} for name in stages for k in range(4)]
    plot_losses(curve, tmp_path / "loss.png")
    content = (tmp_path / "loss.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width = int.from_bytes(content[16:20], "big")
    assert width == 120 * 4 * max(1, len(stages))
