"""Where studies are kept: an SQLite file, any database of SQLAlchemy, or a journal file."""

import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from routedk.errors import DataError, MissingExtraError, RouteDKError
from routedk.optimizers.search.storage_url import (
    JOURNAL,
    check_url,
    file_of,
    not_allowed,
    password_of,
    shown_url,
)
from routedk.optimizers.search.workers import give_back

HEARTBEAT = 30
_ATTEMPTS = 5
_DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
# Of Optuna's, the last one that it makes among them.
_TABLES = {"studies", "trials", "version_info", "alembic_version"}
_LONGEST_LINE = 1 << 20


def open_storage(url: str, *, heartbeat: int = HEARTBEAT) -> BaseStorage:
    """Open, or make, a storage.

    Args:
        url: ``sqlite:///FILE``, any other URL of SQLAlchemy, or ``journal:FILE``.
        heartbeat: Seconds between two signs of life of a worker, at least 1; after four missing
            ones its trial is queued again. A journal keeps none: there a killed worker's trial is
            queued again only by a worker on the same machine.

    Raises:
        SettingError: The URL is none, or of a database in memory.
        MissingExtraError: The database's driver is not installed.
        RouteDKError: The database cannot be reached, or is of another version of Optuna.
        DataError: The journal cannot be written, or is something else.
    """
    check_url(url)
    if url.startswith(JOURNAL):
        return _journal(url, "a+b")
    with storage_errors(url):
        return _database(url, heartbeat)


def open_existing(url: str) -> BaseStorage | None:
    """Open a storage to read it: nothing is made there, and nothing written.

    Args:
        url: As for `open_storage`.

    Returns:
        None where no studies are kept: there is no file, or an empty one, or a database without
        Optuna's tables.

    Raises:
        RouteDKError: As `open_storage`.
    """
    file = file_of(check_url(url))
    if file is not None and not (file.is_file() and file.stat().st_size):
        return None
    if url.startswith(JOURNAL):
        return _journal(url, "rb")
    with storage_errors(url):
        return _database(url, HEARTBEAT, make=False) if _has_tables(url) else None


def check_file(url: str) -> None:
    """Check that a storage's file can be made or written; neither is tried, and a server not asked.

    Args:
        url: As for `open_storage`.

    Raises:
        DataError: It cannot.
    """
    file = file_of(check_url(url))
    if file is None:
        return
    folder = file.resolve().parent
    shown = f"storage {shown_url(url)}"
    if not folder.is_dir():
        hint = "make it, or name another"
        raise DataError(f"{shown}: no such folder", path=file.parent, hint=hint)
    if file.is_dir():
        raise DataError(f"{shown}: a folder", path=file, hint="name a file in it")
    place = file if file.exists() else folder
    if not os.access(place, os.W_OK):
        raise DataError(f"{shown}: cannot be written", path=place, hint="name another")


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn errors of a database into one line that names it, without its password.

    Raises:
        RouteDKError: The database failed.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        reason = " ".join(str(cause).split())[:300]
        if password := password_of(url):
            reason = reason.replace(password, "***")
        raise RouteDKError(
            f"storage {shown_url(url)}: {reason} (check its address, rights and space)"
        ) from error


def _journal(url: str, mode: str) -> BaseStorage:
    path = url.removeprefix(JOURNAL)
    try:
        with Path(path).open(mode) as file:
            file.seek(0)
            first = file.readline(_LONGEST_LINE)
    except OSError as error:
        verb = "read" if mode == "rb" else "write"
        raise DataError(
            f"cannot {verb}: {error.strerror}", path=path, hint="name another journal:FILE"
        ) from error
    try:
        # Optuna skips a broken last line, so a foreign file of one line would pass.
        if first:
            json.loads(first)["op_code"]
        return JournalStorage(JournalFileBackend(path))
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError):
        raise DataError(
            "not a journal of Optuna's, or a damaged one", path=path, hint="name another"
        ) from None


def _database(url: str, heartbeat: int, *, make: bool = True) -> BaseStorage:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _opening(url), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs=_options(url),
                    heartbeat_interval=heartbeat,
                    grace_period=4 * heartbeat,
                    heartbeat_stale_trial_callback=_retry_stale,
                    skip_table_creation=not make,
                )
        except SQLAlchemyError as error:
            # Workers that start at once race to make the tables and to fill them.
            raced = isinstance(error, IntegrityError) or "exists" in str(error)
            if attempt == _ATTEMPTS or not raced:
                raise
            time.sleep(0.2 * attempt)
    raise AssertionError("the last attempt returns or raises")


def _has_tables(url: str) -> bool:
    with _opening(url):
        engine = sqlalchemy.create_engine(url, **_options(url))
    try:
        return set(sqlalchemy.inspect(engine).get_table_names()) >= _TABLES
    finally:
        engine.dispose()


@contextmanager
def _opening(url: str) -> Iterator[None]:
    """Turn errors of a URL, of a driver and of a version into ones that say what to do."""
    try:
        yield
    except ImportError as error:
        module = getattr(error.__cause__ or error, "name", None) or "a driver"
        package = _DRIVERS.get(module, module)
        raise MissingExtraError(
            f"storage {shown_url(url)}: needs {module}, which is not installed: pip install "
            f"{package}"
        ) from None
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise not_allowed(url) from None
    except RuntimeError as error:  # tables of another version; Optuna says what to do
        raise RouteDKError(f"storage {shown_url(url)}: {error}") from None


def _options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    return {"pool_pre_ping": True}


def _retry_stale(study: optuna.Study, trial: FrozenTrial) -> None:
    give_back(study, trial)
