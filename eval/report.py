"""`Report`: the results of an evaluation, its settings and versions."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from routedk.eval.scoring import System

_PACKAGES = ("routedk", "numpy", "scipy", "scikit-learn", "sentence-transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Results of an evaluation: the system, the baselines, settings and versions.

    Args:
        config: Settings that all systems share; a caller may add what the data was.
        system: The system under test; None where only baselines were asked for.
        baselines: The baselines, in the order of the table.
    """

    config: Mapping[str, Any]
    system: System | None = None
    baselines: tuple[System, ...] = ()

    @property
    def systems(self) -> tuple[System, ...]:
        """The system under test, then the baselines."""
        return (*((self.system,) if self.system else ()), *self.baselines)

    def __str__(self) -> str:
        """The table, 80 columns wide, and the notes under it."""
        from rich.console import Console

        from routedk.eval.table import report_notes, report_table

        console = Console(width=80, color_system=None)
        with console.capture() as capture:
            console.print(report_table(self))
        return "\n".join([capture.get(), *report_notes(self)])

    def to_dict(self) -> dict[str, Any]:
        """As a results file, in the spirit of lm-eval.

        ``results``, ``counts`` and perhaps ``intents`` are the system's; ``baselines`` has the
        same by name; ``config`` and ``versions`` say how it came about.
        """
        record: dict[str, Any] = {"config": dict(self.config), "versions": versions()}
        if self.system is not None:
            record = self.system.to_dict() | record
            record["config"] |= self.system.config
        if self.baselines:
            record["baselines"] = {
                one.name: one.to_dict() | {"config": dict(one.config)} for one in self.baselines
            }
        return record


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that evaluation rests on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
