"""A report as one table for the terminal, 80 columns wide."""

from rich.table import Table

from routedk.eval.bootstrap import Interval
from routedk.eval.intents import IntentScores
from routedk.eval.report import Report, System

LEAK_OF_DROP = (
    "Leak: untitled items were dropped (--untitled drop). Where untitled items are in no gold "
    "bundle, that gives part of the answer away."
)
LEAK_OF_CATEGORIES = (
    "* Leak: some items have no category and stay out of every bundle. Where such items are in "
    "no gold bundle, that gives part of the answer away."
)


def report_table(report: Report) -> Table:
    """One line a system: the system under test first, then the baselines.

    P is precision, R recall, EM exact match, C coverage; 95% is the interval of F1.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("\nsystem", no_wrap=True)
    for title in (
        "matched\nF1   95%",
        "\nP    R    EM",
        "strict\nP    R    C",
        "aicl\nP    R    C",
    ):
        table.add_column(title, no_wrap=True)
    for system in ([report.system] if report.system else []) + list(report.baselines):
        table.add_row(*_row(system), style="bold" if system is report.system else None)
    return table


def report_notes(report: Report) -> list[str]:
    """What a reader of the table must know: counts, thresholds, and what leaks."""
    notes = []
    systems = ([report.system] if report.system else []) + list(report.baselines)
    counts = systems[0].result.counts
    notes.append(
        f"{counts.sessions} sessions with {counts.gold_bundles} gold bundles; split "
        f"{report.config['split']}, gold {report.config['gold']}, untitled "
        f"{report.config['untitled']}."
    )
    if report.system is not None:
        notes.append(
            f"{report.system.name}: {counts.answered} sessions answered with {counts.bundles} "
            f"bundles, {counts.dropped} more dropped as invalid or repeated."
        )
        if report.system.result.intents is not None:
            notes.append(_about_intents(report.system.result.intents))
    cuts = [
        f"{system.name} at {system.config['threshold']} (chosen on {system.config['tuned_on']})"
        for system in report.baselines
        if "threshold" in system.config
    ]
    if cuts:
        notes.append(f"Cut: {', '.join(cuts)}.")
    if report.config["leaks"]:
        notes.append(LEAK_OF_DROP)
    if any(system.leaks for system in systems):
        notes.append(LEAK_OF_CATEGORIES)
    return notes


def _row(system: System) -> list[str]:
    matched, strict, aicl = (system.result.results[key] for key in ("matched", "strict", "aicl"))
    f1 = matched["f1"]
    return [
        system.name + ("*" if system.leaks else ""),
        f"{_short(f1.value)} {_short(f1.low, 2)}-{_short(f1.high, 2)}",
        _cells(matched["precision"], matched["recall"], matched["exact"]),
        _cells(strict["precision"], strict["recall"], strict["coverage"]),
        _cells(aicl["precision"], aicl["recall"], aicl["coverage"]),
    ]


def _about_intents(intents: IntentScores) -> str:
    return (
        f"Intents: similarity to gold {intents.similarity.value:.3f} over {intents.pairs} matched "
        f"bundles, {intents.length.value:.1f} words."
    )


def _cells(*intervals: Interval) -> str:
    return " ".join(_short(interval.value) for interval in intervals)


def _short(value: float, digits: int = 3) -> str:
    """A number in digits + 1 characters: `.556`, `1.00`, `4.69`."""
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else f"{value:.{digits - 1}f}"
