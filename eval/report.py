"""`Report`: the results of an evaluation, its settings and versions."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from routedk.eval.agreement import Agreement
from routedk.eval.confidence import CascadeRow, Reliability
from routedk.eval.scoring import System

_PACKAGES = ("routedk", "numpy", "scipy", "scikit-learn", "sentence-transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Results of an evaluation: the system, the baselines, settings and versions.

    Args:
        config: Settings that all systems share; a caller may add a record of the data.
        system: The system under test; None if only baselines were requested.
        baselines: The systems it is compared with, in the order of the table: the reference, if
            any, and the baselines.
        agreement: Agreement of the system with the reference; None without a reference.
        reliability: Its confidence against gold; None if it states none.
        cascade: The system and the reference combined, by confidence.
    """

    config: Mapping[str, Any]
    system: System | None = None
    baselines: tuple[System, ...] = ()
    agreement: Agreement | None = None
    reliability: Reliability | None = None
    cascade: tuple[CascadeRow, ...] = ()

    @property
    def systems(self) -> tuple[System, ...]:
        """The system under test, then the baselines."""
        return (*((self.system,) if self.system else ()), *self.baselines)

    def __str__(self) -> str:
        """The tables, 80 columns wide, and the notes under the first."""
        from routedk.eval.table import detail_tables, rendered, report_notes, report_table

        blocks = [f"{title}\n{rendered(table)}" for title, table in detail_tables(self)]
        if self.systems:
            blocks = [rendered(report_table(self)), "\n".join(report_notes(self)), *blocks]
        return "\n\n".join(block.rstrip() for block in blocks)

    def to_dict(self) -> dict[str, Any]:
        """The content of a results file, in the style of lm-eval.

        ``results``, ``counts`` and, if any, ``intents`` and ``empties`` are the system's;
        ``baselines`` has the same by name; ``config`` and ``versions`` record how they were made.
        """
        record: dict[str, Any] = {"config": dict(self.config), "versions": versions()}
        if self.system is not None:
            record = self.system.to_dict() | record
            record["config"] |= self.system.config
        if self.baselines:
            record["baselines"] = {
                one.name: one.to_dict() | {"config": dict(one.config)} for one in self.baselines
            }
        for name in ("agreement", "reliability", "cascade"):
            if found := getattr(self, name):
                record[name] = [*map(asdict, found)] if name == "cascade" else asdict(found)
        return record


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that evaluation depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
