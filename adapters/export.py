"""Routed experts for engines that know nothing of routing: plain LoRAs and merged weights.

Experts fused by gates that are the same for every session are one LoRA: its A are the experts' A
stacked, its B their B side by side, each times its gate. The sum is exact, at the sum of the ranks.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from routedk.adapters.examples import DEFAULT_FORM
from routedk.adapters.fused import FusedLinear
from routedk.adapters.routed import RoutedStudent
from routedk.adapters.router import FixedFusion, StaticFusion
from routedk.adapters.student import load_student
from routedk.errors import ArtifactError, SettingError

_WEIGHTS = "adapter_model.safetensors"


def fixed_gates(routed: RoutedStudent) -> list[float]:
    """The gates of a fusion that are the same for every session, one per expert.

    Raises:
        SettingError: The fusion's gates depend on the session.
    """
    if not isinstance(routed.fusion, FixedFusion | StaticFusion):
        raise SettingError(
            f"fusion {routed.fusion_name!r} has gates of its own for each session, which no one "
            "LoRA can hold: choose merged, static, uniform or single:EXPERT"
        )
    with torch.no_grad():
        gates: list[float] = routed.fusion(torch.zeros(1, 1))[0].tolist()
    return gates


def export_lora(
    routed: RoutedStudent, folder: str | Path, card: Mapping[str, Any] | None = None
) -> Path:
    """Write the experts, fused by their fixed gates, as one plain PEFT LoRA.

    Experts with gate 0 are left out, so ``single:<expert>`` keeps the expert's own rank.

    Args:
        routed: With a fusion whose gates are the same for every session.
        folder: Made by this call.
        card: Further lines of the adapter card, e.g. data and metrics.

    Returns:
        The folder: ``adapter_config.json``, ``adapter_model.safetensors``, ``README.md``.

    Raises:
        SettingError: The gates depend on the session.
        ArtifactError: The folder exists and is not empty.
    """
    gates = fixed_gates(routed)
    kept = [place for place, gate in enumerate(gates) if gate != 0]
    settings = routed.settings
    rank = settings.r * len(kept)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # The experts' own scaling is in B.
        target_modules=list(settings.target_modules),
        layers_to_transform=list(
            range(routed.first_layer, routed.student.model.config.num_hidden_layers)
        ),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
        base_model_name_or_path=routed.student.name,
        inference_mode=True,
    )
    tensors: dict[str, Tensor] = {}
    for name, module in routed.model.named_modules():
        if isinstance(module, FusedLinear):
            down, up = module.stacked()
            rows = [row for place in kept for row in _rows(place, settings.r)]
            scale = torch.tensor(gates, device=up.device).repeat_interleave(settings.r)
            tensors[f"{name}.lora_A.weight"] = down[rows].detach().cpu().contiguous()
            tensors[f"{name}.lora_B.weight"] = (up * scale)[:, rows].detach().cpu().contiguous()
    with _new_folder(folder) as ready:
        save_file(tensors, ready / _WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(str(ready))
        (ready / "README.md").write_text(_card(routed, gates, rank, card or {}), encoding="utf-8")
    return Path(folder)


def export_model(
    routed: RoutedStudent, folder: str | Path, card: Mapping[str, Any] | None = None
) -> Path:
    """Write the student with its experts folded into its own weights: a plain causal LM.

    Args:
        routed: As in `export_lora`.
        folder: Made by this call.
        card: As in `export_lora`.

    Raises:
        SettingError: The gates depend on the session.
        ArtifactError: The folder exists and is not empty.
    """
    from peft import PeftModel

    gates = fixed_gates(routed)
    with _new_folder(folder) as ready, tempfile.TemporaryDirectory() as scratch:
        lora = export_lora(routed, Path(scratch) / "lora")
        fresh = load_student(routed.student.name, device="cpu", wanted=routed.student.fingerprint)
        if fresh.fingerprint != routed.student.fingerprint:
            raise ArtifactError(
                f"the student {routed.student.name!r} found now has other weights "
                f"({fresh.fingerprint}) than the experts were loaded on "
                f"({routed.student.fingerprint})"
            )
        model: Any = PeftModel.from_pretrained(fresh.model, str(lora))
        model.merge_and_unload().save_pretrained(ready)
        routed.tokenizer.save_pretrained(ready)
        text = _card(routed, gates, None, card or {})
        (ready / "README.md").write_text(text, encoding="utf-8")
    return Path(folder)


def check_new(folder: str | Path) -> None:
    """Check that nothing stands where an export is to go.

    Raises:
        ArtifactError: Something does.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists already: name another folder")


@contextmanager
def _new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when it is full."""
    check_new(folder)
    folder = Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        ready = Path(scratch) / "ready"
        ready.mkdir()
        yield ready
        ready.replace(folder)


def _rows(place: int, rank: int) -> range:
    return range(place * rank, (place + 1) * rank)


def _card(
    routed: RoutedStudent, gates: Sequence[float], rank: int | None, more: Mapping[str, Any]
) -> str:
    """A model card as the Hugging Face hub reads it."""
    settings = routed.settings
    local = Path(routed.student.name).is_dir()  # A path is no name on a hub.
    kind = "full weights" if rank is None else f"one LoRA of rank {rank}"
    facts = {
        "student": f"{Path(routed.student.name).name if local else routed.student.name} "
        f"(fingerprint {routed.student.fingerprint})",
        "form": kind,
        "fusion": routed.fusion_name,
        "gates": ", ".join(
            f"{name} {gate:.4f}" for name, gate in zip(settings.experts, gates, strict=True)
        ),
        "experts": f"rank {settings.r}, alpha {settings.lora_alpha}, decoder layers from "
        f"{routed.first_layer} on",
        **more,
    }
    lines = [f"| {name} | {_cell(value)} |" for name, value in facts.items()]
    library = "transformers" if rank is None else "peft"
    return "\n".join(
        [
            "---",
            *([] if local else [f"base_model: {json.dumps(routed.student.name)}"]),
            f"library_name: {library}",
            "pipeline_tag: text-generation",
            "tags: [routedk, bundle-generation, lora]",
            "---",
            "# Bundle generation with fused LoRA experts",
            "",
            *_ASKED[str(more.get("answer form", DEFAULT_FORM))],
            "",
            "| | |",
            "|---|---|",
            *lines,
            "",
        ]
    )


# How the student is asked, by the form that it answers in.
_ASKED = {
    "item-intents": (
        "Made by RouteDK's `routedk export`. The student names the intent of one item of a",
        "session per completion. Each item's request has the messages of",
        "`routedk.programs.BundleGenerator().messages(session)` and an assistant turn begun",
        "with the item's line and a bar, e.g. `3 Gooseneck Kettle 1L |`. Items with equal or",
        "alike intents are a bundle.",
    ),
    "bundles": (
        "Made by RouteDK's `routedk export`. Asked with the messages of",
        "`routedk.programs.BundleGenerator().messages(session)`, the student writes one line per",
        "bundle, item numbers and the intent: `1 3 4 | camera accessories`. A line `Thought: ...`",
        "may stand first. `routedk.programs.parse_answer` reads the answer.",
    ),
}


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|")
