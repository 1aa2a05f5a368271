import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from routedk.errors import DataError, MissingExtraError, RouteDKError, SettingError
from routedk.optimizers.search.storage import check_file, open_existing, open_storage
from routedk.optimizers.search.storage_url import file_of, shown_url
from routedk.optimizers.search.study import StudySettings, check_study
from tests.optimizers.search.study_worker import SESSIONS, SPACE, run


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("study.db", SettingError, "storage 'study.db': allowed are sqlite:///FILE"),
        ("postgresql://host:x/y", SettingError, "storage 'postgresql://host:x/y': allowed are sq"),
        ("journal:", SettingError, "storage 'journal:': allowed are sqlite:///FILE"),
        ("sqlite://", SettingError, "storage 'sqlite://': a database in memory is gone with the"),
        ("sqlite://mine.db", SettingError, "storage 'sqlite://mine.db': allowed are sqlite:///FI"),
        ("sqlite:///:memory:", SettingError, "a database in memory is gone with the command"),
        ("sqlite:///file:x?mode=memory&uri=true", SettingError, "a database in memory is gone"),
        (
            "postgresql+psycopg://me:secret@127.0.0.1:1/x",
            RouteDKError,
            "storage postgresql+psycopg://me:***@127.0.0.1:1/x: connection failed: ",
        ),
        ("nosql://x/y", SettingError, "storage 'nosql://x/y': allowed are sqlite"),
        ("sqlite:////nowhere/x.db", RouteDKError, "storage sqlite:////nowhere/x.db: "),
        ("journal:/nowhere/x.log", DataError, "/nowhere/x.log: cannot write: No such file"),
        (
            "mysql+mysqldb://me:secret@localhost/x",
            MissingExtraError,
            "storage mysql+mysqldb://me:***@localhost/x: needs MySQLdb, which is not installed: "
            "pip install mysqlclient",
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


FOREIGN = {
    "a table": b'{"columns": ["a"]}\n[1]\n',
    "a list": b"[1]\n",
    "one line": b'{"a": 1}',
    "a text": b"a\nb\n",
    "a picture": b"\x89PNG\r\n\x1a\n\x00",
    "an unknown operation": b'{"op_code": 99}\n',
    "a journal cut in the middle": b'{"op_code":0,"worker_id":"w","study_name":"m","dire\n{}\n',
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_another_file_is_no_journal_and_stays_what_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FOREIGN[kind])
    for opened in (open_storage, open_existing):
        with pytest.raises(DataError, match=r"file: not a journal of Optuna's, or a damaged one"):
            opened(f"journal:{path}")
    with pytest.raises(RouteDKError, match="file is not a database"):
        open_existing(f"sqlite:///{path}")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [FOREIGN[kind]]


def test_where_no_study_is_none_is_made(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for url in (f"sqlite:///{path}", f"journal:{path}"):
        assert open_existing(url) is None
        assert not path.exists()
        path.touch()
        assert open_existing(url) is None
        assert path.stat().st_size == 0
        path.unlink()


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ("file:/data/s.db?uri=true", "/data/s.db"),
        ("file:s.db?uri=true&mode=rwc", "s.db"),
        ("file:///data/a%20b.db?uri=true", "/data/a b.db"),
        ("file://localhost/data/s.db?uri=true", "/data/s.db"),
        ("file:s.db", "file:s.db"),
        ("/data/s.db?timeout=9", "/data/s.db"),
    ],
)
def test_the_file_that_a_database_is(rest: str, path: str) -> None:
    assert file_of(f"sqlite:///{rest}") == Path(path)


def test_a_database_named_as_sqlite_names_files(tmp_path: Path) -> None:
    url = f"sqlite:///file:{tmp_path}/s.db?uri=true"
    chosen = StudySettings(name="mine", storage=url)
    check_study(chosen, SPACE, SESSIONS)
    assert open_existing(url) is None
    assert list(tmp_path.iterdir()) == []
    run(url, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["s.db"]
    with pytest.raises(SettingError, match="already: add --resume"):
        check_study(chosen, SPACE, SESSIONS)


def test_tables_of_another_version_of_optuna_are_named(url: str, tmp_path: Path) -> None:
    open_storage(url)
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
    for opened in (open_storage, open_existing):
        with pytest.raises(RouteDKError, match=r"no longer compatible .* updating optuna"):
            opened(url)


def test_what_is_wrong_with_a_study_is_said_before_anything_is_made(
    url: str, tmp_path: Path
) -> None:
    def check(**settings: Any) -> None:
        chosen = StudySettings(**{"name": "mine", "storage": url, **settings})
        check_study(chosen, SPACE, SESSIONS)

    check()
    check(resume=True)
    with pytest.raises(DataError, match=r"nowhere: storage sqlite:///.*/x\.db: no such folder"):
        check(storage=f"sqlite:///{tmp_path}/nowhere/x.db")
    assert list(tmp_path.iterdir()) == []
    run(url, 1)
    check(resume=True)
    check(name="other")
    with pytest.raises(SettingError, match=r"is in sqlite:///.* already: add --resume"):
        check()
    with pytest.raises(SettingError, match='made with another objective: "both", not "f1"'):
        check(resume=True, objective="f1")
    theirs = optuna.create_study(
        study_name="theirs", storage=url, directions=["maximize", "minimize"]
    )
    check(name="theirs", resume=True)  # another worker may be making it
    with pytest.raises(SettingError, match="was not made by routedk search"):
        check(name="theirs", resume=True, objective="f1")  # it would minimise the score
    theirs.tell(theirs.ask(), (0.5, 9.0))
    with pytest.raises(SettingError, match=r"'theirs' in sqlite.* was not made by routedk search"):
        check(name="theirs", resume=True)
    with pytest.raises(SettingError, match="was not made by routedk search: name another"):
        run(url, 1, name="theirs")


def test_a_file_that_cannot_be_written_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (f"sqlite:///{tmp_path}", f"journal:{tmp_path}"):
        with pytest.raises(DataError) as caught:
            check_file(folder)
        assert str(caught.value) == f"{tmp_path}: storage {folder}: a folder (name a file in it)"
    # Not by its rights: root may write everywhere.
    locked = tmp_path
    monkeypatch.setattr("os.access", lambda path, mode: (path, mode) != (locked, os.W_OK))
    with pytest.raises(DataError) as caught:
        check_file(url)
    said = f"storage {url}: cannot be written (name another)"
    assert str(caught.value) == f"{tmp_path}: {said}"
    locked = tmp_path / "study.db"
    check_file(url)
    locked.touch()
    with pytest.raises(DataError) as caught:
        check_file(url)
    assert str(caught.value) == f"{locked}: {said}"
    check_file("postgresql://host/name")


def test_a_password_is_not_shown() -> None:
    assert shown_url("postgresql://me:secret@host/x") == "postgresql://me:***@host/x"
    assert shown_url("journal:a.log") == "journal:a.log"
    assert StudySettings(name="mine").url == "sqlite:///mine.db"
