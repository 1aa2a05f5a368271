"""Fixtures of the tests of the journal."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from routedk.programs.journal.journal import open_journal
from routedk.programs.journal.journaled_lm import journaled_lm


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where `opened` keeps its journal."""
    return tmp_path / "journals" / "teacher.jsonl"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Any]]:
    """Open the journal before a language model; the one before is closed first."""
    with ExitStack() as stack:

        def open_(lm: Any, run: str = "run", **budget: Any) -> Any:
            stack.close()
            return journaled_lm(lm, stack.enter_context(open_journal(path, run, **budget)))

        yield open_
