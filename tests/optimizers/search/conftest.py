"""The tiny student for trials, and databases for studies and their workers."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from tests.adapters.conftest import student_folder

__all__ = ["student_folder"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database of PostgreSQL; without a server the test is skipped."""
    pytest.importorskip("psycopg")
    from tests.postgres import database, postgres_server

    with postgres_server() as server, database(server) as url:
        yield url
