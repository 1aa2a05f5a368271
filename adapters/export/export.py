"""Experts for engines that know nothing of routing: one plain LoRA, or merged weights.

Both hold gates that are the same for every session.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routedk.artifacts import check_output, copy_artifact
from routedk.errors import ArtifactError, SettingError

if TYPE_CHECKING:
    from routedk.adapters.experts.routed import RoutedStudent


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """All settings of an export.

    Args:
        fusion: Gates that are the same for every session: static, uniform, single:EXPERT, or
            merged, the router's mean. Unset: merged.
        gates: Gates of your own instead of a fusion, as NAME=SHARE,..., e.g. base=.5,rule=.5.
        full: The student with the experts in its weights, instead of a LoRA.
        max_rank: Refuse a LoRA of a higher rank; a server may have a limit.
        truncate: Cut a LoRA down to max_rank by SVD instead of refusing it.
        results: Results of evaluate, for the card.

    Raises:
        SettingError: Settings exclude each other, or the gates are not of that form.
    """

    fusion: str | None = None
    gates: str | None = None
    full: bool = False
    max_rank: int | None = None
    truncate: bool = False
    results: Path | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.fusion and self.gates:
            raise SettingError("give fusion or gates, not both")
        if self.full and (self.truncate or self.max_rank is not None):
            raise SettingError("max_rank, truncate: full weights have no rank, leave them out")
        if self.gates is not None:
            parse_gates(self.gates)


def export(experts: str | Path, output: str | Path, config: ExportConfig | None = None) -> Path:
    """Export experts for other engines; the card, ``README.md``, says how to serve and ask them.

    Sessions are no longer routed each in its own way: evaluate before you serve it.

    Args:
        experts: Folder of experts, as `train` makes it.
        output: A new folder for the export.
        config: All settings.

    Returns:
        The folder of the export.

    Raises:
        SettingError: As `export_lora`.
        ArtifactError: The experts are damaged, or the output exists and is not empty.
        DataError: The results are no results of an evaluation.
    """
    from routedk.adapters.experts.routed import RoutedStudent
    from routedk.adapters.experts.routing_file import read_routing
    from routedk.adapters.export.card import result_facts, training_facts

    config = config or ExportConfig()
    check_output(output)
    card = training_facts(read_routing(Path(experts)))
    if config.results is not None:
        card |= result_facts(config.results)
    gates = None if config.gates is None else parse_gates(config.gates)
    # Gates of one's own need no router.
    fusion = "uniform" if gates is not None else config.fusion or "merged"
    routed = RoutedStudent.load(experts, fusion=fusion)
    if config.full:
        return export_model(routed, output, card, gates=gates)
    return export_lora(
        routed, output, card, gates=gates, max_rank=config.max_rank, truncate=config.truncate
    )


def parse_gates(text: str) -> dict[str, float]:
    """Gates written as ``base=.5,rule=.5``.

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
                f"gates {text}: {part!r} is no NAME=SHARE of its own; write e.g. base=.5,rule=.5"
            )
        found[name] = value
    return found


def export_lora(
    routed: "RoutedStudent",
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    gates: Mapping[str, float] | None = None,
    max_rank: int | None = None,
    truncate: bool = False,
) -> Path:
    """Write the experts, fused by fixed gates, as one plain PEFT LoRA.

    Experts with gate 0 are left out, so ``single:<expert>`` keeps the expert's own rank.

    Args:
        routed: With a fusion whose gates are the same for every session, unless gates are given.
        folder: Made by this call.
        card: Further lines of the adapter card, e.g. data and metrics.
        gates: See `fixed_gates`.
        max_rank: Highest rank allowed; None for any.
        truncate: Whether a higher rank is cut down to it by SVD, with its error in the card.

    Returns:
        The folder: ``adapter_config.json``, ``adapter_model.safetensors``, ``README.md``.

    Raises:
        SettingError: The gates depend on the session or are none, or the rank is too high.
        ArtifactError: The folder exists and is not empty.
    """
    from routedk.adapters.export.card import lora_facts, write_card
    from routedk.adapters.export.plain_lora import fold

    held = fixed_gates(routed, gates)
    lora = fold(routed, held, max_rank=max_rank, truncate=truncate)
    check_output(folder)
    with tempfile.TemporaryDirectory() as scratch:
        ready = Path(scratch)
        lora.write(ready)
        facts = lora_facts(lora) | _fusion_facts(routed, gates, held) | dict(card or {})
        write_card(ready, routed, facts, lora)
        copy_artifact(ready, folder)
    return Path(folder)


def export_model(
    routed: "RoutedStudent",
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    gates: Mapping[str, float] | None = None,
) -> Path:
    """Write the student with its experts folded into its own weights: a plain causal LM.

    Args:
        routed: As in `export_lora`.
        folder: Made by this call.
        card: As in `export_lora`.
        gates: As in `export_lora`.

    Raises:
        SettingError: The gates depend on the session, or are none.
        ArtifactError: The folder exists and is not empty.
    """
    from peft import PeftModel

    from routedk.adapters.export.card import write_card
    from routedk.adapters.export.plain_lora import fold
    from routedk.adapters.student import load_student

    held = fixed_gates(routed, gates)
    check_output(folder)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as made:
        ready = Path(made)
        fold(routed, held).write(Path(scratch))
        student = routed.student
        fresh = load_student(student.name, device="cpu", wanted=student.fingerprint)
        if fresh.fingerprint != student.fingerprint:
            raise ArtifactError(
                f"the student {student.name!r} found now has other weights ({fresh.fingerprint}) "
                f"than the experts were loaded on ({student.fingerprint})"
            )
        model: Any = PeftModel.from_pretrained(fresh.model, scratch)
        model.merge_and_unload().save_pretrained(ready)
        routed.tokenizer.save_pretrained(ready)
        facts = {"form": "full weights"} | _fusion_facts(routed, gates, held) | dict(card or {})
        write_card(ready, routed, facts)
        copy_artifact(ready, folder)
    return Path(folder)


def fixed_gates(routed: "RoutedStudent", gates: Mapping[str, float] | None = None) -> list[float]:
    """The gates that an export holds, one per expert.

    Args:
        routed: The experts and their fusion.
        gates: By names of experts, at least 0 and summing to one; an expert that is not named
            has 0. None for the fusion's own.

    Raises:
        SettingError: The fusion's gates depend on the session, or the given ones are none.
    """
    import torch

    from routedk.adapters.experts.router import FixedFusion, StaticFusion

    if gates is None:
        if not isinstance(routed.fusion, FixedFusion | StaticFusion):
            raise SettingError(
                f"fusion {routed.fusion_name!r} has gates of its own for each session, which no "
                "one LoRA can hold: choose merged, static, uniform or single:EXPERT, or give gates"
            )
        with torch.no_grad():
            own: list[float] = routed.fusion(torch.zeros(1, 1))[0].tolist()
        return own
    experts = routed.settings.experts
    unknown = [name for name in gates if name not in experts]
    if unknown:
        raise SettingError(f"gates of {', '.join(unknown)}: the experts are {', '.join(experts)}")
    held = [float(gates.get(name, 0.0)) for name in experts]
    if not (all(gate >= 0 for gate in held) and abs(sum(held) - 1) <= 1e-6):
        shown = ", ".join(f"{name}={gate:g}" for name, gate in gates.items())
        raise SettingError(f"gates {shown or 'of no expert'}: each at least 0, summing to 1")
    return held


def _fusion_facts(
    routed: "RoutedStudent", given: Mapping[str, float] | None, held: list[float]
) -> dict[str, str]:
    pairs = zip(routed.settings.experts, held, strict=True)
    return {
        "fusion": routed.fusion_name if given is None else "gates as given",
        "gates": ", ".join(f"{name} {gate:.4f}" for name, gate in pairs),
    }
