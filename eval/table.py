"""A report as one table for the terminal, 80 columns wide."""

from typing import TYPE_CHECKING

from rich.table import Table

from routedk.eval.bootstrap import Interval
from routedk.eval.scoring import System

if TYPE_CHECKING:
    from routedk.eval.report import Report

LEAK_OF_CATEGORIES = (
    "* Leak: some items have no category and stay out of every bundle. Where such items are in "
    "no gold bundle, that gives part of the answer away."
)


def report_table(report: "Report") -> Table:
    """One line a system: the system under test first, then the baselines.

    P is precision, R recall, EM exact match, C coverage; 95% is the interval of F1.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in (
        "\nsystem",
        "matched\nF1   95%",
        "\nP    R    EM",
        "strict\nP    R    C",
        "aicl\nP    R    C",
    ):
        table.add_column(title, no_wrap=True)
    for system in report.systems:
        table.add_row(*_row(system), style="bold" if system is report.system else None)
    return table


def report_notes(report: "Report") -> list[str]:
    """What a reader of the table must know: counts, thresholds, and what leaks."""
    counts = report.systems[0].counts
    notes = [f"{counts.sessions} sessions with {counts.gold_bundles} gold bundles."]
    if report.system is not None:
        notes.append(
            f"{report.system.name}: {counts.answered} sessions answered with {counts.bundles} "
            f"bundles, {counts.dropped} more dropped as invalid or repeated."
        )
        if (intents := report.system.intents) is not None:
            notes.append(
                f"Intents: similarity to gold {intents.similarity.value:.3f} over {intents.pairs} "
                f"matched bundles, {intents.length.value:.1f} words."
            )
    cuts = [
        f"{system.name} at {system.config['threshold']} (chosen on {system.config['tuned_on']})"
        for system in report.baselines
        if "threshold" in system.config
    ]
    if cuts:
        notes.append(f"Cut: {', '.join(cuts)}.")
    if any(system.leaks for system in report.systems):
        notes.append(LEAK_OF_CATEGORIES)
    return notes


def _row(system: System) -> list[str]:
    matched, strict, aicl = (system.results[name] for name in ("matched", "strict", "aicl"))
    return [
        system.name + ("*" if system.leaks else ""),
        f"{_short(system.f1.value)} {_short(system.f1.low, 2)}-{_short(system.f1.high, 2)}",
        _cells(matched["precision"], matched["recall"], matched["exact"]),
        _cells(strict["precision"], strict["recall"], strict["coverage"]),
        _cells(aicl["precision"], aicl["recall"], aicl["coverage"]),
    ]


def _cells(*intervals: Interval) -> str:
    return " ".join(_short(interval.value) for interval in intervals)


def _short(value: float, digits: int = 3) -> str:
    """A number in digits + 1 characters: `.556`, `1.00`, `4.69`."""
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else f"{value:.{digits - 1}f}"
