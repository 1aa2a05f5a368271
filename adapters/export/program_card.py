"""The card of a program with its language model: what answers, and what it was made from."""

from pathlib import Path
from string import Template
from typing import Any

from routedk.adapters.export.card import TEXTS, student_row, table, trained
from routedk.programs.generator import BundleGenerator


def program_card(program: BundleGenerator) -> str:
    """A card in Markdown.

    Args:
        program: With its language model set.
    """
    shown, lm, grouping = program.knowledge, program.generate.lm, program.groups_by()
    demos = sum(len(predictor.demos) for predictor in program.predictors())
    counts = {"patterns": len(shown.patterns), "rules": len(shown.rules), "neighbours": shown.k}
    texts = [f"{count} {name}" for name, count in {**counts, "demos": demos}.items() if count]
    rows = {
        "program": f"fingerprint {program.fingerprint()[:16]}",
        "shown in prompts": ", ".join(texts) or "no knowledge",
        "language model": lm.model,
    }
    if routed := getattr(getattr(lm.engine, "generator", None), "routed", None):
        rows |= {**student_row(routed), "fusion": routed.fusion_name, **trained(routed)}
    if grouping is not None:
        record: dict[str, Any] = getattr(grouping, "record", {})
        facts = {"encoder": _public(record.get("encoder")), **record.get("training", {})}
        known = [
            f"{name.replace('_', ' ')} {fact}"
            for name, fact in facts.items()
            if isinstance(fact, str | int)
        ]
        rows["grouping"] = ", ".join([f"fingerprint {grouping.fingerprint()[:16]}", *known])
    text = (TEXTS / "program-card.md").read_text(encoding="utf-8")
    return Template(text).substitute(table=table(rows))


def _public(name: str | None) -> str | None:
    """The name of a model; for a local folder, only the folder's own name."""
    local = name and (Path(name).is_dir() or name.startswith(("/", ".", "~")))
    return Path(name).name if name and local else name
