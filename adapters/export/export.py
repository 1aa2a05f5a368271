"""Routed experts for engines that know nothing of routing: a plain LoRA, or merged weights.

Both hold gates that are the same for every session; for gates that are not, there is
`routedk.adapters.export.prototype_export`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import FixedFusion, StaticFusion
from routedk.adapters.export.card import (
    base_name,
    gates_fact,
    lora_facts,
    serving,
    write_card,
)
from routedk.adapters.export.plain_lora import fold
from routedk.adapters.student import load_student
from routedk.errors import ArtifactError, SettingError


def fixed_gates(routed: RoutedStudent, gates: Mapping[str, float] | None = None) -> list[float]:
    """The gates that an export holds, one per expert.

    Args:
        routed: The experts and their fusion.
        gates: By names of experts, at least 0 and summing to one; an expert that is not named
            has 0. None for the fusion's own.

    Raises:
        SettingError: The fusion's gates depend on the session, or the given ones are none.
    """
    if gates is not None:
        return _given_gates(routed.settings.experts, gates)
    if not isinstance(routed.fusion, FixedFusion | StaticFusion):
        raise SettingError(
            f"fusion {routed.fusion_name!r} has gates of its own for each session, which no one "
            "LoRA can hold: choose merged, static, uniform or single:EXPERT, give gates, or "
            "export prototypes"
        )
    with torch.no_grad():
        own: list[float] = routed.fusion(torch.zeros(1, 1))[0].tolist()
    return own


def _given_gates(experts: tuple[str, ...], gates: Mapping[str, float]) -> list[float]:
    unknown = [name for name in gates if name not in experts]
    if unknown:
        raise SettingError(f"gates of {', '.join(unknown)}: the experts are {', '.join(experts)}")
    found = [float(gates.get(name, 0.0)) for name in experts]
    if not (all(gate >= 0 for gate in found) and abs(sum(found) - 1) <= 1e-6):
        shown = ", ".join(f"{name}={gate:g}" for name, gate in gates.items())
        raise SettingError(f"gates {shown or 'of no expert'}: each at least 0, summing to 1")
    return found


def export_lora(
    routed: RoutedStudent,
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
    held = fixed_gates(routed, gates)
    lora = fold(routed, held, max_rank=max_rank, truncate=truncate)
    with new_folder(folder) as ready:
        lora.write(ready)
        facts = lora_facts(lora) | _fusion_facts(routed, gates, held) | dict(card or {})
        serve = serving(base_name(routed), {"bundles": "."}, lora.rank)
        write_card(ready, routed, facts, library="peft", serve=serve)
    return Path(folder)


def export_model(
    routed: RoutedStudent,
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

    held = fixed_gates(routed, gates)
    with new_folder(folder) as ready, tempfile.TemporaryDirectory() as scratch:
        fold(routed, held).write(Path(scratch))
        fresh = load_student(routed.student.name, device="cpu", wanted=routed.student.fingerprint)
        if fresh.fingerprint != routed.student.fingerprint:
            raise ArtifactError(
                f"the student {routed.student.name!r} found now has other weights "
                f"({fresh.fingerprint}) than the experts were loaded on "
                f"({routed.student.fingerprint})"
            )
        model: Any = PeftModel.from_pretrained(fresh.model, scratch)
        model.merge_and_unload().save_pretrained(ready)
        routed.tokenizer.save_pretrained(ready)
        facts = {"form": "full weights"} | _fusion_facts(routed, gates, held) | dict(card or {})
        write_card(ready, routed, facts, library="transformers", serve="vllm serve .")
    return Path(folder)


def _fusion_facts(
    routed: RoutedStudent, given: Mapping[str, float] | None, held: list[float]
) -> dict[str, str]:
    name = routed.fusion_name if given is None else "gates as given"
    return {"fusion": name, "gates": gates_fact(routed, held)}


def check_new(folder: str | Path) -> None:
    """Check that nothing stands where an export is to go.

    Raises:
        ArtifactError: Something does.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists already: name another folder")


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when it is full."""
    check_new(folder)
    folder = Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        ready = Path(scratch) / "ready"
        ready.mkdir()
        yield ready
        ready.replace(folder)
