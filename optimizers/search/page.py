"""The report as one HTML page that needs nothing beside itself."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from routedk.files import atomic_write
from routedk.optimizers.search.settings import shown_value

TEMPLATE = "report.html"
_PICTURES = {
    "history": "Matched F1 on validation of each complete trial, and the best so far",
    "front": "Matched F1 against tokens per session; best trials are those of the front",
    "importances-f1": "Importances for matched F1",
    "importances-tokens": "Importances for tokens per session",
    "parallel": "One line a complete trial: its score, and what it was asked for",
}


def render_page(record: Mapping[str, Any], pictures: Mapping[str, Path], path: Path) -> None:
    """Write the page; all that came from data, settings or reasons is escaped.

    Args:
        record: What ``report.json`` holds.
        pictures: PNGs by name; they are put into the page.
        path: Where the page goes.
    """
    source = (Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(score=_score, interval=_interval, settings=settings_in_words)
    images = {
        name: {
            "data": base64.b64encode(file.read_bytes()).decode("ascii"),
            "says": _PICTURES[name],
        }
        for name, file in pictures.items()
    }
    with atomic_write(path) as file:
        file.write(environment.from_string(source).render(r=record, images=images))


def settings_in_words(settings: Mapping[str, Any] | None) -> str:
    """Settings in one line, without what is not there.

    Args:
        settings: As `TrialSettings.to_dict` gives them; None for none.
    """
    said = []
    for name, value in (settings or {}).items():
        if value is None or (name in ("neighbours", "rules") and value == 0):
            continue
        said.append(f"{name} {shown_value(value)}")
    return ", ".join(said)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
