import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from routedk.errors import MissingExtraError, RouteDKError, SettingError
from routedk.optimizers.search.config import StudyConfig
from routedk.optimizers.search.storage import open_storage
from routedk.optimizers.search.study import read_study
from tests.optimizers.search.answers import run


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("study.db", SettingError, "storage 'study.db': not a URL of a database; write sqlite"),
        ("postgresql://me:secret@h:port/x", SettingError, "storage 'h:port/x': not a URL of a dat"),
        ("journal:x.log", SettingError, "storage 'journal:x.log': not a URL"),
        (
            "postgresql+psycopg://me:secret@127.0.0.1:1/x",
            RouteDKError,
            "storage 'postgresql+psycopg://me:***@127.0.0.1:1/x': connection failed: ",
        ),
        ("nosql://x/y", RouteDKError, "storage 'nosql://x/y': Can't load plugin: "),
        ("sqlite:////nowhere/x.db", RouteDKError, "storage 'sqlite:////nowhere/x.db': "),
        (
            "mysql+mysqldb://me:secret@localhost/x",
            MissingExtraError,
            "storage 'mysql+mysqldb://me:***@localhost/x': its driver is not installed",
        ),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(
    url: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        open_storage(url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_tables_of_another_version_of_optuna_are_named(url: str, tmp_path: Path) -> None:
    run(url, 1)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9'")
        connection.commit()
    with pytest.raises(RouteDKError, match=r"storage 'sqlite:.*"):
        open_storage(url)


@pytest.mark.parametrize("left", [b"", b"\0" * 4096])
def test_a_damaged_file_is_named_and_left_as_it_is(left: bytes, url: str, tmp_path: Path) -> None:
    run(url, 2)
    file = tmp_path / "study.db"
    content = file.read_bytes()
    damaged = left + content[len(left) : len(content) // 2]
    file.write_bytes(damaged)
    for attempt in (
        lambda: run(url, 3),
        lambda: read_study(StudyConfig(study="mine", storage=url)),
    ):
        with pytest.raises(RouteDKError, match=rf"^storage '{url}': \(?[^\n]*$"):
            attempt()
        assert file.read_bytes() == damaged


def test_a_study_is_an_ordinary_one_of_optunas(url: str) -> None:
    run(url, 2)
    assert len(optuna.load_study(study_name="mine", storage=url).trials) == 2
