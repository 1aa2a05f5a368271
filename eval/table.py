"""A report as tables for the terminal, 80 columns wide."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from routedk.eval.bootstrap import Interval
from routedk.eval.confidence import Reliability

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
    rows = [
        (
            system.name + "*" * system.leaks,
            interval_text(system.f1),
            *(
                " ".join(short(system.results[protocol][metric].value) for metric in metrics)
                for protocol, metrics in _COLUMNS.values()
            ),
        )
        for system in report.systems
    ]
    # With its mark, the longest name leaves less room between columns.
    gap = 1 if max(len(row[0]) for row in rows) > 18 else 2
    return _table(("\nsystem", "matched\nF1   95%", *_COLUMNS), rows, gap)


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


_SHARES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def detail_tables(report: "Report") -> Iterator[tuple[str, Table | None]]:
    """Each table that has content, after its title; sometimes only the title."""
    if empties := [(one, one.empties) for one in report.systems if one.empties]:
        count = empties[0][0].counts.empty_sessions
        bare = report.config.get("items_without_title", {}).get("empty", 0)
        leak = f" Leak: {bare} of their items have no title." if bare else ""
        rows = [
            (one.name, interval_text(found.left_empty), interval_text(found.f1_all))
            for one, found in empties
        ]
        columns: Iterable[str] = ("system", "left empty 95%", "matched F1 over all 95%")
        yield f"{count} sessions without a gold bundle.{leak}", _table(columns, rows)
    if report.reliability:
        yield _reliability("the matched gold bundle", report.reliability)
    if report.cascade:
        rows = [
            (short(row.below, 1), short(row.teacher_calls), interval_text(row.matched_f1))
            for row in report.cascade
        ]
        title = "Cascade: the reference answers sessions whose confidence is below P."
        yield title, _table(("P", "teacher calls", "matched F1 95%"), rows)
    if (agreed := report.agreement) is None:
        return
    title = (
        f"Agreement with the reference: matched F1 {interval_text(agreed.matched_f1)} with its "
        f"bundles\nas gold, {agreed.answered} of {agreed.sessions} sessions answered."
    )
    table = None
    if (kinds := agreed.kinds) is not None:
        title += (
            f"\nKinds agree on {interval_text(kinds.agreeing)} of {kinds.pairs} matched bundles; "
            f"always {kinds.majority_kind}: {short(kinds.majority)}."
        )
        columns = ("reference / stated", *kinds.confusion, "agreeing")
        table = _table(
            columns,
            (
                (kind, *map(str, row.values()), short(row[kind] / max(1, sum(row.values()))))
                for kind, row in kinds.confusion.items()
            ),
        )
    yield title, table
    if agreed.reliability and not report.reliability:
        yield _reliability("the matched reference bundle: agreement", agreed.reliability)


def curves_table(report: "Report") -> Table:
    """The best matched F1 on gold sessions at which a given share of the others is left empty."""

    def best(system_curve: Iterable[tuple[float, float]], share: float) -> str:
        reached = [f1 for left_empty, f1 in system_curve if left_empty >= share]
        return short(max(reached)) if reached else "-"

    curves = {
        one.name: [(row.left_empty, row.f1) for row in one.empties_curve]
        for one in report.systems
        if one.empties_curve
    }
    columns = ("F1 where left empty is", *(f">= {short(share, 1)}" for share in _SHARES))
    rows = ((name, *(best(rows, share) for share in _SHARES)) for name, rows in curves.items())
    return _table(columns, rows)


def _reliability(of: str, found: Reliability) -> tuple[str, Table]:
    rows = (
        (
            f"{short(row.low, 1)}-{short(row.high, 1)}",
            str(row.bundles),
            short(row.confidence),
            short(row.jaccard),
        )
        for row in found.bins
    )
    title = f"Confidence, and Jaccard with {of}.\nExpected calibration error "
    table = _table(("confidence", "bundles", "mean confidence", "mean Jaccard"), rows)
    return f"{title}{short(found.calibration_error)}.", table


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]], gap: int = 2) -> Table:
    table = Table(*columns, box=None, padding=(0, gap, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table
