"""Adapter cards: what an export is, what it was made from, and how it is served."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.export.plain_lora import PlainLora, server_rank
from routedk.adapters.training.examples import DEFAULT_FORM
from routedk.errors import DataError
from routedk.files import read_json

CARD_FILE = "README.md"


def training_facts(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of the experts' training, from ``routing.json``."""
    training = document.get("training") or {}
    facts = {
        "answer form": training.get("answer_form"),
        "training sessions": training.get("sessions"),
        "tokens seen": training.get("tokens"),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def result_facts(path: str | Path) -> dict[str, Any]:
    """What the card says of an evaluation, from a results file of ``routedk evaluate``.

    Raises:
        DataError: It is no such file, or scores no predictions.
    """
    document = read_json(path)
    try:
        assert isinstance(document, dict)
        config, counts = document["config"], document["counts"]
        score = document["results"]["matched"]["f1"]
        value, low, high = (float(score[key]) for key in ("value", "low", "high"))
        where = f"{Path(config['data']).name}, split {config['split']}"
        sessions = int(counts["sessions"])
    except (AssertionError, KeyError, TypeError, ValueError):
        raise DataError(
            "no results of predictions",
            path=path,
            hint="give what `routedk evaluate --predictions` wrote",
        ) from None
    return {
        "evaluated on": f"{where}, {sessions} sessions",
        "matched F1": f"{value:.3f} (95% {low:.3f} to {high:.3f})",
    }


def gates_fact(routed: RoutedStudent, gates: Sequence[float]) -> str:
    """Gates beside their experts' names."""
    names = routed.settings.experts
    return ", ".join(f"{name} {gate:.4f}" for name, gate in zip(names, gates, strict=True))


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


def base_name(routed: RoutedStudent) -> str:
    """The student's name as a card may say it: a path tells too much of a machine."""
    name = routed.student.name
    return Path(name).name if Path(name).is_dir() else name


def serving(base: str, loras: Mapping[str, str], rank: int) -> str:
    """The command that serves LoRAs with vLLM, each by its name and path."""
    modules = " ".join(f"{name}={path}" for name, path in loras.items())
    count = f" --max-loras {len(loras)}" if len(loras) > 1 else ""
    needed = server_rank(rank) or rank
    return (
        f"vllm serve {base} --enable-lora --max-lora-rank {needed}{count} --lora-modules {modules}"
    )


def write_card(
    folder: Path,
    routed: RoutedStudent,
    facts: Mapping[str, Any],
    *,
    library: str,
    serve: str,
    more: Sequence[str] = (),
) -> None:
    """Write a model card as the Hugging Face hub reads it.

    Args:
        folder: Gets ``README.md``.
        routed: What is exported.
        facts: Lines of the card's table; ``answer form`` says how the student is to be asked.
        library: ``peft`` or ``transformers``.
        serve: The command that serves it.
        more: Further lines of Markdown.
    """
    settings = routed.settings
    base = base_name(routed)
    table = {
        "student": f"{base} (fingerprint {routed.student.fingerprint})",
        **facts,
        "experts": f"rank {settings.r}, alpha {settings.lora_alpha}, decoder layers from "
        f"{routed.first_layer} on",
    }
    named = [] if Path(routed.student.name).is_dir() else [f"base_model: {json.dumps(base)}"]
    lines = [
        "---",
        *named,
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        "tags: [routedk, bundle-generation, lora]",
        "---",
        "# Bundle generation with fused LoRA experts",
        "",
        *_ASKED[str(facts.get("answer form", DEFAULT_FORM))],
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in table.items()),
        "",
        "Served by [vLLM](https://docs.vllm.ai), started in this folder:",
        "",
        f"    {serve}",
        "",
        *more,
    ]
    (folder / CARD_FILE).write_text("\n".join(lines), encoding="utf-8")


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
        "may stand first. `routedk.programs.read_answer` reads the answer.",
    ),
    "verification": (
        "Made by RouteDK's `routedk export`. The student judges candidate bundles. Each one's",
        "request has the messages of `routedk.programs.BundleGenerator().messages(session)` and an",
        "assistant turn begun with the lines of its items and a bar, e.g.",
        "`1 Gooseneck Kettle 1L + 3 Coffee Grinder |`; it goes on with yes or no.",
    ),
}


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|")
