"""Where studies are kept: an SQLite file, any database of SQLAlchemy, or a journal file."""

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from routedk.errors import DataError, MissingExtraError, RouteDKError, SettingError
from routedk.optimizers.search.workers import give_back

JOURNAL = "journal:"
HEARTBEAT = 30
_ATTEMPTS = 5
_DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


def check_name(name: str) -> str:
    """The name of a study: letters, digits, ``_``, ``-`` and ``.``, the first a letter or digit.

    Raises:
        SettingError: It is another.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name, flags=re.ASCII):
        raise SettingError(
            f"study {name!r}: a name has letters, digits, '_', '-' and '.', begins with a letter "
            "or digit, and is no longer than 100"
        )
    return name


def storage_url(url: str | None, name: str) -> str:
    """The URL of a study's storage: as given, or an SQLite file of the study's name here."""
    return url or f"sqlite:///{check_name(name)}.db"


def shown_url(url: str) -> str:
    """A storage's URL as it may be shown: without its password."""
    if url.startswith(JOURNAL):
        return url
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return re.sub(r"//[^@/]*@", "//***@", url)


def open_storage(url: str, *, heartbeat: int = HEARTBEAT) -> BaseStorage:
    """Open, or make, a storage.

    Args:
        url: ``sqlite:///FILE``, any other URL of SQLAlchemy, or ``journal:FILE``.
        heartbeat: Seconds between two signs of life of a worker, at least 1; after four missing
            ones its trial is queued again. A journal keeps none: there a killed worker's trial is
            queued again only by a worker on the same machine.

    Raises:
        SettingError: The URL is none.
        MissingExtraError: The database's driver is not installed.
        RouteDKError: The database cannot be reached.
        DataError: The journal cannot be written.
    """
    if url.startswith(JOURNAL):
        path = url.removeprefix(JOURNAL)
        try:
            with open(path, "ab"):  # noqa: PTH123
                pass
            return JournalStorage(JournalFileBackend(path))
        except OSError as error:
            raise DataError(
                f"cannot write: {error.strerror}", path=path, hint="name another journal:FILE"
            ) from error
    return _database(url, heartbeat)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn errors of a database into one line that names it, without its password.

    Raises:
        RouteDKError: The database failed.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _failed(url, error) from error


def _database(url: str, heartbeat: int) -> BaseStorage:
    shown = shown_url(url)
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    if not url.startswith("sqlite"):
        options = {"pool_pre_ping": True}  # type: ignore[dict-item]
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=heartbeat,
                    grace_period=4 * heartbeat,
                    heartbeat_stale_trial_callback=_retry_stale,
                )
        except ImportError as error:
            module = getattr(error.__cause__ or error, "name", None) or "a driver"
            package = _DRIVERS.get(module, module)
            raise MissingExtraError(
                f"storage {shown}: needs {module}, which is not installed: pip install {package}"
            ) from None
        except (ArgumentError, NoSuchModuleError, ValueError):
            raise SettingError(
                f"storage {shown!r}: allowed are sqlite:///FILE, any other URL of SQLAlchemy such "
                "as postgresql://USER@HOST/NAME, and journal:FILE"
            ) from None
        except SQLAlchemyError as error:
            # Workers that start at once race to make the tables and to fill them.
            raced = isinstance(error, IntegrityError) or "exists" in str(error)
            if attempt == _ATTEMPTS or not raced:
                raise _failed(url, error) from error
            time.sleep(0.2 * attempt)
    raise AssertionError("the last attempt returns or raises")


def _retry_stale(study: optuna.Study, trial: FrozenTrial) -> None:
    give_back(study, trial)


def _failed(url: str, error: Exception) -> RouteDKError:
    cause = getattr(error, "orig", None) or error.__cause__ or error
    reason = " ".join(str(cause).split())[:300]
    password = "" if url.startswith(JOURNAL) else make_url(url).password
    if password:
        reason = reason.replace(str(password), "***")
    return RouteDKError(f"storage {shown_url(url)}: {reason} (check its address, rights and space)")
