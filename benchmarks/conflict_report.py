"""What the systems of `benchmarks.conflict` reached, with intervals, in pairs, as tables."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.conflict_systems import RECIPES
from routedk.eval.bootstrap import bootstrap

SHOWN = {"base": "session alone", "rule": "rules", "thought": "neighbour with thought"}
GROUPINGS = ("equal", "similar")
PAIRS = (
    ("routed", "mixed"),
    ("routed", "rules"),
    ("routed", "thoughts"),
    ("mixed", "rules"),
    ("mixed", "thoughts"),
)
EVERY = "all in common"
Scores = Mapping[tuple[str, str, str], Sequence[float]]


def intervals(scores: Scores, seed: int) -> Iterator[dict[str, Any]]:
    """The mean of each system, prompt and grouping, with 95%."""
    keys = list(scores)
    values_NM = np.array([scores[key] for key in keys]).T
    found = bootstrap(values_NM, np.ones_like(values_NM), seed=seed)
    for (system, prompt, grouping), interval in zip(keys, found, strict=True):
        yield {"system": system, "prompt": prompt, "grouping": grouping, **interval.to_dict()}


def differences(scores: Scores, seed: int) -> Iterator[dict[str, Any]]:
    """One system minus another, session by session, under each prompt both can be asked with.

    ``all in common`` is the mean over these prompts.
    """
    rows, columns = list[dict[str, Any]](), list[Any]()
    for (one, other), grouping in product(PAIRS, GROUPINGS):
        common = [p for p in RECIPES[one].prompts if p in RECIPES[other].prompts]
        gains = [
            np.subtract(scores[one, prompt, grouping], scores[other, prompt, grouping])
            for prompt in common
        ]
        every = np.mean(gains, axis=0)
        for prompt, gain in zip((*common, EVERY), (*gains, every), strict=True):
            rows.append({"system": one, "minus": other, "prompt": prompt, "grouping": grouping})
            columns.append(gain)
    values_NM = np.stack(columns, axis=1)
    found = bootstrap(values_NM, np.ones_like(values_NM), seed=seed)
    for row, interval in zip(rows, found, strict=True):
        yield {**row, **interval.to_dict()}


def show(document: Mapping[str, Any]) -> None:
    """Print the results as two tables."""
    console = Console(width=144)
    first = Table(title="Matched F1 on validation, 95%")
    for column in ("system", "prompt", "equal intents", "similar intents"):
        first.add_column(column)
    first.add_column("unparsable", justify="right")
    first.add_column("training tokens", justify="right")
    first.add_column("s/session", justify="right")
    found = {(r["system"], r["prompt"], r["grouping"]): r for r in document["matched_f1"]}
    for cost in document["generation"]:
        name, prompt = cost["system"], cost["prompt"]
        seconds = cost["seconds_per_session"]
        first.add_row(
            name,
            SHOWN[prompt],
            *(_interval(found[name, prompt, grouping]) for grouping in GROUPINGS),
            str(cost["unparsable"]),
            str(sum(document["systems"][name]["tokens"].values())),
            "" if seconds is None else f"{seconds:.2f}",
        )
    console.print(first)
    second = Table(title="Differences, session by session, 95%")
    for column in ("difference", "prompt", "equal intents", "similar intents"):
        second.add_column(column)
    gains = {
        (d["system"], d["minus"], d["prompt"], d["grouping"]): d for d in document["differences"]
    }
    for one, other, prompt in dict.fromkeys(key[:3] for key in gains):
        second.add_row(
            f"{one} - {other}",
            SHOWN.get(prompt, prompt),
            *(_interval(gains[one, other, prompt, grouping], "+") for grouping in GROUPINGS),
        )
    console.print(second)
    for name, interval in document["references"].items():
        console.print(f"{name}: {_interval(interval)}", highlight=False)


def _interval(record: Mapping[str, float], sign: str = "") -> str:
    value, low, high = (format(record[key], f"{sign}.3f") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
