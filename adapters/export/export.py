"""Experts for engines without routing: one plain LoRA, or merged weights.

Both hold gates that are the same for every session.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from routedk.artifacts import check_output, copy_artifact
from routedk.errors import SettingError

if TYPE_CHECKING:
    from routedk.adapters.experts.routed import RoutedStudent

# How far from 1 the sum of given gates may be, as three times .3333 is.
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `export_experts`.

    Args:
        fusion: Gates that are the same for every session: static, uniform, single:EXPERT, or
            merged, the router's mean. Unset: merged.
        gates: Gates of your own instead of a fusion, as NAME=SHARE,..., e.g. base=.5,rule=.5.
        full: Export the student with the experts merged into its weights, instead of a LoRA.

    Raises:
        SettingError: Settings exclude each other, or the gates are not of that form.
    """

    fusion: str | None = None
    gates: str | None = None
    full: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.fusion and self.gates:
            raise SettingError("give fusion or gates, not both")
        if self.gates is not None:
            parse_gates(self.gates)


def export_experts(
    experts: str | Path, output: str | Path, config: ExportConfig | None = None
) -> Path:
    """Write experts as one plain PEFT LoRA, or as full weights, with a model card.

    Sessions are no longer routed individually: evaluate the export before you serve it. Experts
    with gate 0 are left out, so ``single:<expert>`` keeps the expert's own rank.

    Args:
        experts: Folder of experts, as `train` writes it.
        output: A new folder for the export.
        config: All settings.

    Returns:
        The folder: ``README.md``, and the files of a LoRA or of a causal LM.

    Raises:
        SettingError: The gates depend on the session, name an unknown expert or do not sum to
            one; or the experts are only active from the session on.
        ArtifactError: The experts are damaged, or the output exists and is not empty.
    """
    from routedk.adapters.experts.routed import RoutedStudent
    from routedk.adapters.export.card import write_card
    from routedk.adapters.export.plain_lora import fold

    config = config or ExportConfig()
    check_output(output)
    # Gates given by the user need no router.
    fusion = "uniform" if config.gates else config.fusion or "merged"
    routed = RoutedStudent.load(experts, fusion=fusion, dtype="float32")
    gates = fixed_gates(routed, config.gates)
    lora = fold(routed, list(gates.values()))
    with tempfile.TemporaryDirectory() as made:
        ready = Path(made) / "export"  # Only its owner may read a scratch folder.
        ready.mkdir()
        if config.full:
            lora.merge(routed, ready)
        else:
            lora.write(ready)
        shown = "gates as given" if config.gates else fusion
        write_card(ready, routed, shown, gates, None if config.full else lora.config.r)
        copy_artifact(ready, output)
    return Path(output)


def parse_gates(text: str) -> dict[str, float]:
    """Parse gates written as ``base=.5,rule=.5``.

    Raises:
        SettingError: They are not of that form, or name an expert twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not name or name in found or value < 0:
            raise SettingError(
                f"gates {text}: {part!r} must be NAME=SHARE, each name once and no share negative"
            )
        found[name] = value
    return found


def fixed_gates(routed: "RoutedStudent", given: str | None) -> dict[str, float]:
    """The gate of each expert in an export.

    Args:
        routed: The experts and their fusion.
        given: As for `parse_gates`, summing to one; an expert that is not named has 0. None for
            the fusion's own.

    Raises:
        SettingError: The fusion's gates depend on the session, or the given ones name an unknown
            expert or do not sum to one.
    """
    import torch

    from routedk.adapters.experts.router import FixedFusion, StaticFusion

    experts = routed.settings.experts
    if given is None:
        if not isinstance(routed.fusion, FixedFusion | StaticFusion):
            raise SettingError(
                f"fusion {routed.fusion_name!r} has gates of its own for each session, which no "
                "one LoRA can hold: choose merged, static, uniform or single:EXPERT, or give gates"
            )
        with torch.no_grad():
            own = routed.fusion(torch.zeros(1, 1))[0].tolist()
        return dict(zip(experts, own, strict=True))
    gates = parse_gates(given)
    unknown = [name for name in gates if name not in experts]
    if unknown:
        raise SettingError(f"gates of {', '.join(unknown)}: the experts are {', '.join(experts)}")
    total = sum(gates.values())
    if not abs(total - 1) <= _ROUNDING:
        raise SettingError(f"gates {given}: their sum is {total:g}, it must be 1")
    return {name: gates.get(name, 0.0) / total for name in experts}
