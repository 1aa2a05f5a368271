"""The command line, and for ``routedk search`` pipelines that answer at once."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from routedk.cli import main

from .generating import asked, data

__all__ = ["asked", "data"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: its exit code, and what it says on stdout and stderr, line breaks folded."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), " ".join(out.split()), " ".join(err.split())

    return call


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each pipeline was made with; they answer at once."""
    from routedk.optimizers.search.testing import FastPipeline

    made: list[dict[str, Any]] = []

    class Fast(FastPipeline):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            made.append(options)

    # The real one's module loads torch; tests/optimizers/search/test_pipeline.py runs it.
    name = "routedk.optimizers.search.pipeline"
    module = ModuleType(name)
    module.Pipeline = Fast  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A search space in which nothing is trained and little is chosen."""
    path = tmp_path / "space.toml"
    path.write_text(
        'utilization = "ICL"\nformats = ["none", "rule"]\nneighbours = 0\nrules = [4]\n'
    )
    return path
