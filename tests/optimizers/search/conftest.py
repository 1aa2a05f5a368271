"""The tiny student, for the pipeline of trials, and databases, for studies and their workers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial

from routedk.optimizers.search.identity import IDENTITY
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


def study_of(trials: Sequence[FrozenTrial], directions: Sequence[str]) -> optuna.Study:
    """A study ``mine`` in memory with these trials, as search would have made it."""
    study = optuna.create_study(study_name="mine", directions=directions)
    made_with = {"objective": "both", "space": {}, "sessions": ["a", "b"]}
    study.set_user_attr(IDENTITY, made_with)
    for trial in trials:
        study.add_trial(trial)
    return study
