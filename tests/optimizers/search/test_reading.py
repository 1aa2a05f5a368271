import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from routedk.data import Part
from routedk.errors import SettingError
from routedk.optimizers.search.identity import IDENTITY, data_record
from routedk.optimizers.search.reading import (
    check_sessions,
    dashboard_command,
    export_command,
    read_study,
)
from routedk.optimizers.search.testing import small_sessions
from routedk.types import Session
from tests.optimizers.search.conftest import study_of


def test_only_the_sessions_of_the_study(caplog: pytest.LogCaptureFixture) -> None:
    sessions = small_sessions(8)
    study = study_of([], ["maximize"])
    # Of three validation sessions one was scored.
    parts: dict[Part, list[Session]]
    parts = {"train": sessions[:3], "val": sessions[3:6], "test": sessions[6:]}
    data = data_record(parts["train"], [sessions[4]], parts["test"], seed=1)
    study.set_user_attr(IDENTITY, {"sessions": ["s4"], "data": data})
    assert check_sessions(study, parts, seed=1) == [sessions[4]]
    with pytest.raises(SettingError, match="'mine' was made with --seed 1, not 0: give --data and"):
        check_sessions(study, parts, seed=0)
    others: Mapping[Part, list[Session]]
    for others, message in (
        ({"train": sessions[:2]}, "made with other sessions: 3 training sessions, not 2: give --d"),
        ({"val": sessions[5:6]}, "made with other sessions: 1 validation sessions, not 0: give"),
        ({"test": sessions[6:7]}, "set aside 2 test sessions, not 1: give --data"),
        ({"test": sessions[:5:-1]}, "set aside 2 test sessions, not these 2, which have other ids"),
        ({"test": []}, "set aside 2 test sessions, not 0"),
        ({"test": sessions[5:]}, "1 test sessions are training or validation sessions, e.g. 's5'"),
    ):
        with pytest.raises(SettingError) as caught:
            check_sessions(study, {**parts, **others}, seed=1)
        assert message in str(caught.value)
        assert "--max-validation" not in str(caught.value)
    assert caplog.text == ""
    # As earlier versions kept it: which test sessions there were is not known.
    early = {name: data[name] for name in ("digest", "seed")}
    study.set_user_attr(IDENTITY, {"sessions": ["s4"], "data": early})
    assert check_sessions(study, {**parts, "test": sessions[6:7]}, seed=1) == [sessions[4]]
    assert "study mine does not say which test sessions were set aside" in caplog.text
    with pytest.raises(SettingError, match="'mine' was made with other sessions: give --data and"):
        check_sessions(study, {**parts, "train": []}, seed=1)
    with pytest.raises(SettingError, match=r"1 test sessions are .* e\.g\. 's5': split again"):
        check_sessions(study, {**parts, "test": sessions[5:]}, seed=1)


@pytest.mark.parametrize("data", [{}, {"data": None}, {"data": {"file": "a"}}])
def test_a_study_that_says_nothing_of_its_data(
    data: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    sessions = small_sessions(3)
    study = study_of([], ["maximize"])
    study.set_user_attr(IDENTITY, {"sessions": ["s1"], **data})
    parts: dict[Part, list[Session]]
    parts = {"train": sessions[:1], "val": sessions[1:2], "test": sessions[2:]}
    assert check_sessions(study, parts, seed=0) == [sessions[1]]
    assert "study mine does not say which test sessions were set aside" in caplog.text


def test_a_study_that_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"study 'x': there is no .*study\.db: name its storage"):
        read_study("x", url)
    with pytest.raises(SettingError, match=r"there is no .*a\.log"):
        read_study("x", f"journal:{tmp_path}/a.log")
    assert list(tmp_path.iterdir()) == []
    optuna.create_study(study_name="other", storage=url)
    with pytest.raises(SettingError, match=r"study 'x' is not in .*: there are other"):
        read_study("x", url)
    with pytest.raises(SettingError, match="was not made by routedk search"):
        read_study("other", url)


def test_another_database_stays_what_it_is(url: str, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE studies (patient TEXT)")
    before = path.read_bytes()
    with pytest.raises(SettingError, match=r"study 'x': there is no study in sqlite:///.*: name"):
        read_study("x", url)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("storage", "command"),
    [
        (None, "optuna-dashboard sqlite:///mine.db"),
        ("journal:/tmp/a.log", "optuna-dashboard /tmp/a.log"),
        (
            "postgresql://me:secret@host/name",
            "optuna-dashboard 'postgresql://me:***@host/name'",
        ),
    ],
)
def test_the_dashboards_command_holds_no_password(storage: str | None, command: str) -> None:
    assert dashboard_command("mine", storage) == command


def test_the_command_that_exports_can_be_pasted() -> None:
    assert export_command("mine", 7) == "routedk search export 7 --study mine --output mine-7"
    command = export_command("mine", 7, "postgresql://me:secret@host/name", "my store")
    assert shlex.split(command)[5:] == [
        *("mine", "--storage", "postgresql://me:***@host/name"),
        *("--store", "my store", "--output", "mine-7"),
    ]
