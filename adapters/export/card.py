"""Adapter cards: what an export is, what it was made from, and how it is served."""

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.export.plain_lora import PlainLora
from routedk.adapters.training.examples import DEFAULT_FORM
from routedk.errors import DataError
from routedk.files import read_json

CARD_FILE = "README.md"
# What vLLM allows for --max-lora-rank (its LoRAConfig), from 8 on.
SERVER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

_TEXTS = Path(__file__).parent


def training_facts(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of the experts' training, from ``routing.json``."""
    training = document.get("training") or {}
    names = {"answer_form": "answer form", "sessions": "training sessions", "tokens": "tokens seen"}
    return {names[name]: fact for name, fact in training.items() if name in names and fact}


def result_facts(path: str | Path) -> dict[str, Any]:
    """What the card says of an evaluation, from a results file of ``routedk evaluate``.

    Raises:
        DataError: It is no such file, or scores no predictions.
    """
    document: Any = read_json(path)
    try:
        config, counts = document["config"], document["counts"]
        score = document["results"]["matched"]["f1"]
        value, low, high = (float(score[key]) for key in ("value", "low", "high"))
        where = f"{Path(config['data']).name}, split {config['split']}"
        sessions = int(counts["sessions"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            "no results of predictions",
            path=path,
            hint="give what `routedk evaluate --predictions` wrote",
        ) from None
    return {
        "evaluated on": f"{where}, {sessions} sessions",
        "matched F1": f"{value:.3f} (95% {low:.3f} to {high:.3f})",
    }


def lora_facts(lora: PlainLora) -> dict[str, Any]:
    """What the card says of one LoRA."""
    needed = server_rank(lora.rank)
    facts = {
        "form": f"one LoRA of rank {lora.rank}",
        "served by vLLM": "no --max-lora-rank is high enough: export it truncated, or full weights"
        if needed is None
        else f"needs --max-lora-rank {needed}",
    }
    if lora.error:
        facts["truncated"] = f"by SVD, relative Frobenius error {lora.error:.4g}"
    return facts


def server_rank(rank: int) -> int | None:
    """The lowest ``--max-lora-rank`` of vLLM that serves this rank; None where none does."""
    return next((allowed for allowed in SERVER_RANKS if allowed >= rank), None)


def write_card(
    folder: Path, routed: RoutedStudent, facts: Mapping[str, Any], lora: PlainLora | None = None
) -> None:
    """Write ``README.md``, a model card as the Hugging Face hub reads it.

    Args:
        folder: Of the export.
        routed: What is exported.
        facts: Lines of the card's table; ``answer form`` says how the student is to be asked.
        lora: What the folder holds; None for full weights.
    """
    settings, name = routed.settings, routed.student.name
    # A path would say too much about a machine, and is no name on the hub.
    local = Path(name).is_dir()
    base = Path(name).name if local else name
    table = {
        "student": f"{base} (fingerprint {routed.student.fingerprint})",
        **facts,
        "experts": f"rank {settings.r}, alpha {settings.lora_alpha}, decoder layers from "
        f"{routed.first_layer} on",
    }
    serve = "vllm serve ."
    if lora is not None:
        rank = server_rank(lora.rank) or lora.rank
        serve = f"vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules bundles=."
    form = facts.get("answer form", DEFAULT_FORM)
    card = Template((_TEXTS / "card.md").read_text(encoding="utf-8")).substitute(
        base_model="" if local else f"base_model: {json.dumps(base)}\n",
        library="transformers" if lora is None else "peft",
        asked=(_TEXTS / f"asked-{form}.md").read_text(encoding="utf-8").strip(),
        table="\n".join(f"| {name} | {_cell(value)} |" for name, value in table.items()),
        serve=serve,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|")
