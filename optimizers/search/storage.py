"""Where studies are kept: an SQLite file, another database of SQLAlchemy's, or a journal file."""

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import (
    BaseStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from routedk.errors import DataError, MissingExtraError, RouteDKError, SettingError
from routedk.files import JsonlLog

JOURNAL = "journal:"
MAX_RETRIES = 3
GRACE = 4
"""Missing signs of life after which a worker counts as dead."""
_ATTEMPTS = 5
_FIRST = b'{"op_code"'


@contextmanager
def experimental() -> Iterator[None]:
    """Without Optuna's warnings of what may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@experimental()
def open_storage(url: str, *, heartbeat: int = 30) -> BaseStorage:
    """Open a storage, or make it.

    Args:
        url: ``sqlite:///FILE``, any other URL of SQLAlchemy, or ``journal:FILE``.
        heartbeat: Seconds between two signs of life of a worker; after four missing ones its trial
            is queued again. A journal keeps none.

    Raises:
        SettingError: The URL is none, or of a database in memory.
        MissingExtraError: The database's driver is not installed.
        RouteDKError: The database cannot be reached, or is of another version of Optuna.
        DataError: The journal cannot be written, or is something else.
    """
    if url.startswith(JOURNAL):
        return _journal(Path(url.removeprefix(JOURNAL)).resolve())
    with storage_errors(url):
        if ":memory:" in url or url == "sqlite://":
            raise SettingError(
                f"storage {url!r}: a database in memory is gone with the command, and with it the "
                "study; name a file, sqlite:///FILE"
            )
        return _database(url, heartbeat)


def shown_url(url: str) -> str:
    """A storage's URL as it may be shown: without its password."""
    return re.sub(r"(//[^/@]*):[^/]*@", r"\1:***@", url)


def file_of(url: str) -> Path | None:
    """The file that a storage is; None for a server."""
    scheme, _, file = url.partition(":")
    if scheme not in ("journal", "sqlite"):
        return None
    return Path(file.removeprefix("///"))


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn errors of a database into one line that names it, without its password.

    Raises:
        RouteDKError: The database failed; its leaves for what a user can change.
    """
    shown = f"storage {shown_url(url)!r}"
    try:
        yield
    except (ArgumentError, NoSuchModuleError) as error:
        raise SettingError(
            f"{shown}: allowed are sqlite:///FILE, any other URL of SQLAlchemy such as "
            "postgresql://USER@HOST/NAME, and journal:FILE"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        reason = " ".join(str(cause).split())[:300]
        if password := make_url(url).password:
            reason = reason.replace(str(password), "***")
        raise RouteDKError(f"{shown}: {reason} (check its address, rights and space)") from error


def _journal(path: Path) -> BaseStorage:
    """What a killed worker or a power cut left half written is cut off first."""
    lock = JournalFileSymlinkLock(str(path))
    try:
        with path.open("a+b") as file:
            file.seek(0)
            if not _FIRST.startswith(file.read(len(_FIRST)).rstrip(b"\0")):
                raise ValueError("another file")
        # Another worker may be about to write its next line.
        lock.acquire()
        try:
            JsonlLog(path).close()
        finally:
            lock.release()
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        hint = "name another journal:FILE"
        raise DataError(f"cannot write: {error.strerror}", path=path, hint=hint) from error
    except (ValueError, LookupError, AssertionError):
        problem = "not a journal of Optuna's, or a damaged one"
        raise DataError(problem, path=path, hint="name another") from None


def _database(url: str, heartbeat: int, attempt: int = 1) -> BaseStorage:
    try:
        return RDBStorage(
            url,
            engine_kwargs={} if url.startswith("sqlite") else {"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            grace_period=GRACE * heartbeat,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MAX_RETRIES),
        )
    except ImportError as error:
        raise MissingExtraError(
            f"storage {shown_url(url)!r}: its driver is not installed: {error} (for PostgreSQL: "
            "pip install 'routedk[postgres]')"
        ) from None
    except RuntimeError as error:  # tables of another version; Optuna says what to do
        raise RouteDKError(f"storage {shown_url(url)!r}: {error}") from None
    except SQLAlchemyError as error:
        # Workers that start at once race to make the tables and to fill them.
        raced = isinstance(error, IntegrityError) or "exists" in str(error)
        if attempt == _ATTEMPTS or not raced:
            raise
        time.sleep(0.2 * attempt)
        return _database(url, heartbeat, attempt + 1)
