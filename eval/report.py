"""A results file: what was reached, under which settings, with which versions."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from routedk.eval.evaluate import EvaluationResult

_PACKAGES = ("routedk", "numpy", "scipy", "scikit-learn", "sentence-transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One line of a table: a system and what it reached.

    Args:
        name: Public name.
        result: What it reached.
        config: Settings of its own, e.g. a threshold and what it was chosen on. ``leaks`` says
            that something other than titles gives part of the answer away.
    """

    name: str
    result: EvaluationResult
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def leaks(self) -> bool:
        """Whether its own settings are flagged as leaking the answer."""
        return bool(self.config.get("leaks", False))

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a results file."""
        return self.result.to_dict() | {"config": dict(self.config)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything an evaluation says.

    Args:
        config: Data, split, policies and seed, the same for all systems.
        system: The system under test; None where only baselines were asked for.
        baselines: The baselines, in the order of the table.
    """

    config: Mapping[str, Any]
    system: System | None = None
    baselines: tuple[System, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As a results file, in the spirit of lm-eval.

        ``results``, ``counts`` and perhaps ``intents`` are the system's; ``baselines`` has the
        same by name; ``config`` and ``versions`` say how it came about.
        """
        record: dict[str, Any] = {}
        if self.system is not None:
            record |= self.system.result.to_dict()
        record["config"] = dict(self.config) | dict(self.system.config if self.system else {})
        record["versions"] = versions()
        if self.baselines:
            record["baselines"] = {system.name: system.to_dict() for system in self.baselines}
        return record


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that evaluation rests on, where installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
