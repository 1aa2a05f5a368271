"""Damaged files of every kind that a command takes: the short form of ``benchmarks.file_fuzz``."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from routedk.errors import DataError, RouteDKError


@pytest.fixture
def file_fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from benchmarks import file_fuzz

    return file_fuzz


def test_a_damaged_file_is_used_or_refused(file_fuzz: Any, tmp_path: Path) -> None:
    fuzz = file_fuzz.FileFuzz(tmp_path, seed=0)
    assert fuzz.run(2000) == []
    assert sum(sum(counts.values()) for counts in fuzz.counts.values()) == 2000
    # A manifest that cannot be read is none.
    assert all(counts["refused"] for kind, counts in fuzz.counts.items() if kind != "manifest")
    assert {path.name for path in tmp_path.iterdir()} == {"made", "damaged"}


def _write_elsewhere(folder: Path) -> None:
    (folder.parents[1] / "elsewhere").write_text("x")


def _run(folder: Path) -> None:
    import os

    os.system("true")


def _import(folder: Path) -> None:
    import routedk_canary  # type: ignore[import-not-found]  # noqa: F401


class _Long(RouteDKError):
    def __str__(self) -> str:
        return "x" * 301


def _raise(error: Exception) -> Callable[[Path], None]:
    def use(folder: Path) -> None:
        raise error

    return use


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (_write_elsewhere, "writes "),
        (_run, "os.system"),
        (_import, "imports routedk_canary"),
        (_raise(ValueError("plain")), "ValueError: plain"),
        (_raise(_Long()), "the message is 'xxx"),
        (_raise(DataError("short")), ""),
    ],
)
def test_what_is_a_fault(
    file_fuzz: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[Path], None],
    told: str,
) -> None:
    fuzz = file_fuzz.FileFuzz(tmp_path, seed=0, kinds=["scores"])
    kind = file_fuzz.KINDS["scores"]
    monkeypatch.setitem(file_fuzz.KINDS, "scores", replace(kind, use=use))
    faults = fuzz.run(1)
    assert len(faults) == bool(told)
    assert all(told in fault for fault in faults)
