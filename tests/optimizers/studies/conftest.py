"""The tiny student, and ten short sessions."""

import optuna
import pytest

from routedk.data import load_sessions
from routedk.types import Session
from tests.adapters.conftest import student_folder

__all__ = ["student_folder"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


@pytest.fixture(scope="session")
def parts() -> dict[str, list[Session]]:
    """Short sessions of the demo set with gold."""
    short = sorted((s for s in load_sessions("demo") if s.gold), key=lambda s: len(s.items))
    return {"train": short[:8], "val": short[8:10], "test": short[10:14]}
