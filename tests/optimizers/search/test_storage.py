import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from routedk.errors import DataError, MissingExtraError, RouteDKError, SettingError
from routedk.optimizers.search.storage import file_of, open_storage, shown_url
from tests.optimizers.search.answers import run


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("study.db", SettingError, "storage 'study.db': allowed are sqlite:///FILE"),
        ("sqlite://", SettingError, "storage 'sqlite://': a database in memory is gone with the"),
        ("sqlite:///:memory:", SettingError, "a database in memory is gone with the command"),
        (
            "postgresql+psycopg://me:secret@127.0.0.1:1/x",
            RouteDKError,
            "storage 'postgresql+psycopg://me:***@127.0.0.1:1/x': connection failed: ",
        ),
        ("nosql://x/y", SettingError, "storage 'nosql://x/y': allowed are sqlite"),
        ("sqlite:////nowhere/x.db", RouteDKError, "storage 'sqlite:////nowhere/x.db': "),
        ("journal:/nowhere/x.log", DataError, "/nowhere/x.log: cannot write: No such file"),
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


FOREIGN = {
    "a table": b'{"columns": ["a"]}\n[1]\n',
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
    with pytest.raises(DataError, match=r"file: not a journal of Optuna's, or a damaged one"):
        open_storage(f"journal:{path}")
    assert path.read_bytes() == FOREIGN[kind]


@pytest.mark.parametrize("rest", [b'{"op_code":4,"worker_id":"x', b"\0\0\0", b'{"op_code"\0\0'])
def test_a_journal_that_was_cut_is_repaired(
    rest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("journal:x.log", 2)
    whole = Path("x.log").read_bytes()
    Path("x.log").write_bytes(whole + rest)
    study = run("journal:x.log", 3)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert Path("x.log").read_bytes().startswith(whole)
    monkeypatch.chdir("/")  # the path was relative to where it was opened
    assert len(study.trials) == 3


@pytest.mark.parametrize("left", [b"", b"\0\0", b'{"op_'])
def test_a_journal_that_was_cut_at_its_first_line_is_begun_again(
    left: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x.log").write_bytes(left)
    assert len(run(f"journal:{tmp_path}/x.log", 1).trials) == 1


def test_tables_of_another_version_of_optuna_are_named(url: str, tmp_path: Path) -> None:
    run(url, 1)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9'")
        connection.commit()
    with pytest.raises(RouteDKError, match=r"storage 'sqlite:.*"):
        open_storage(url)


def test_a_password_is_not_shown() -> None:
    assert shown_url("postgresql://me:a@b:c@host/x") == "postgresql://me:***@host/x"
    assert shown_url("postgresql://me@host:5432/x") == "postgresql://me@host:5432/x"
    assert shown_url("journal:/a:b@c") == "journal:/a:b@c"


def test_the_file_that_a_storage_is() -> None:
    assert file_of("sqlite:////data/x.db") == Path("/data/x.db")
    assert file_of("sqlite:///x.db") == Path("x.db")
    assert file_of("journal:x.log") == Path("x.log")
    assert file_of("postgresql://host/x") is None


def test_a_study_is_an_ordinary_one_of_optunas(url: str) -> None:
    run(url, 2)
    assert len(optuna.load_study(study_name="mine", storage=url).trials) == 2
