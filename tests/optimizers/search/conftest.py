"""The tiny student, for the pipeline of trials, and a database, for its workers."""

from collections.abc import Iterator

import pytest

from tests.adapters.conftest import student_folder

__all__ = ["student_folder"]


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database of PostgreSQL; without a server the test is skipped."""
    pytest.importorskip("psycopg")
    from tests.postgres import database, postgres_server

    with postgres_server() as server, database(server) as url:
        yield url
