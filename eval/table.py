"""A report as one table for the terminal, 80 columns wide."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from routedk.eval.bootstrap import Interval

if TYPE_CHECKING:
    from routedk.eval.report import Report

_LEGEND = (
    "F1 with its 95% interval; P precision, R recall, EM exact matches, C coverage, as three ways "
    "of scoring have them (docs/evaluation.md)."
)
_LEAK = (
    "* Leak: some items have no category, or no title, and stay out of every bundle. Where such "
    "items are in no gold bundle, that gives part of the answer away."
)
_COLUMNS = {
    "\nP    R    EM": ("matched", ("precision", "recall", "exact")),
    "strict\nP    R    C": ("strict", ("precision", "recall", "coverage")),
    "aicl\nP    R    C": ("aicl", ("precision", "recall", "coverage")),
}


def report_table(report: "Report") -> Table:
    """One line per system: the system under test first, then the baselines.

    P is precision, R recall, EM exact match, C coverage; 95% is the interval of F1.
    """
    names = [system.name + "*" * system.leaks for system in report.systems]
    # With its mark, the longest name leaves less room between columns.
    gap = 1 if max(map(len, names)) > 18 else 2
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)
    for title in ("\nsystem", "matched\nF1   95%", *_COLUMNS):
        table.add_column(title, no_wrap=True)
    for system, name in zip(report.systems, names, strict=True):
        cells = [
            " ".join(short(system.results[protocol][metric].value) for metric in metrics)
            for protocol, metrics in _COLUMNS.values()
        ]
        table.add_row(
            name,
            interval_text(system.f1),
            *cells,
            style="bold" if system is report.system else None,
        )
    return table


def report_notes(report: "Report") -> list[str]:
    """The notes under the table: legend, counts, thresholds, and what leaks."""
    counts = report.systems[0].counts
    notes = [_LEGEND, f"{counts.sessions} sessions with {counts.gold_bundles} gold bundles."]
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
        notes.append(_LEAK)
    return notes


def rendered(table: Table | None) -> str:
    """The table as text, 80 columns wide; empty without a table."""
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table or "", end="")
    return capture.get()


def interval_text(interval: Interval) -> str:
    """A mean with its interval: `.556 .51-.60`."""
    return f"{short(interval.value)} {short(interval.low, 2)}-{short(interval.high, 2)}"


def short(value: float, digits: int = 3) -> str:
    """A number in digits + 1 characters: `.556`, `1.00`, `4.69`."""
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else f"{value:.{digits - 1}f}"
