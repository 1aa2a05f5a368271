"""Where studies are kept: an SQLite file, another SQLAlchemy database, or a storage proxy."""

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from routedk.errors import MissingExtraError, RouteDKError, SettingError

MAX_RETRIES = 3
GRACE = 4
"""Missed heartbeats after which a worker counts as dead."""
_ATTEMPTS = 5
# Seconds to wait for a proxy to answer.
_PATIENCE = 10


@contextmanager
def experimental() -> Iterator[None]:
    """Suppress Optuna's warnings about experimental features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@experimental()
def open_storage(url: str, *, heartbeat: int = 30) -> BaseStorage:
    """Open a storage, or create it.

    Args:
        url: ``sqlite:///FILE``, any other SQLAlchemy URL, or ``grpc://HOST:PORT``, Optuna's
            storage proxy, which has no heartbeats.
        heartbeat: Seconds between a worker's heartbeats; after four missed ones its trial is
            queued again.

    Raises:
        SettingError: It is not the URL of a database.
        MissingExtraError: The database's driver, or gRPC, is not installed.
        RouteDKError: The database cannot be reached, or was made by another version of Optuna.
    """
    with storage_errors(url):
        return _proxy(parse_url(url)) if is_proxy(url) else _database(url, heartbeat)


def is_proxy(url: str) -> bool:
    """Whether a storage is Optuna's proxy, through which workers send no heartbeats."""
    return parse_url(url).drivername == "grpc"


def parse_url(url: str) -> URL:
    """Parse a storage's URL; its string form hides the password.

    Raises:
        SettingError: It is not a URL.
    """
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # The part before the @ may hold a password.
        raise SettingError(
            f"storage {url.rpartition('@')[2]!r}: not a URL of a database; write sqlite:///FILE, "
            "or for example postgresql://USER@HOST:PORT/NAME"
        ) from None


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn database errors into one line that names the storage, without its password.

    Raises:
        SettingError: It is not the URL of a database.
        RouteDKError: The database failed.
    """
    shown = parse_url(url)
    try:
        yield
    except _errors() as error:
        cause: Any = getattr(error, "orig", None) or error.__cause__ or error
        said = cause.details() if hasattr(cause, "details") else cause
        reason = " ".join(str(said).split())
        raise RouteDKError(f"storage '{shown}': {reason}") from error


def _errors() -> tuple[type[Exception], ...]:
    """What a database raises and, if gRPC is in use, a proxy."""
    grpc: Any = sys.modules.get("grpc")
    return (SQLAlchemyError, StorageInternalError, *([grpc.RpcError] if grpc else []))


def _proxy(url: URL) -> GrpcStorageProxy:
    try:
        proxy = GrpcStorageProxy(host=url.host or "localhost", port=url.port or 13000)
        proxy.wait_server_ready(timeout=_PATIENCE)
    except ImportError as error:
        message = f"storage '{url}': {error}: pip install 'routedk[grpc]'"
        raise MissingExtraError(message) from None
    except ConnectionError:
        message = f"storage '{url}': no proxy answers (docs/scale.md says how to start one)"
        raise RouteDKError(message) from None
    return proxy


def _database(url: str, heartbeat: int, attempt: int = 1) -> RDBStorage:
    try:
        return RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            grace_period=GRACE * heartbeat,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MAX_RETRIES),
        )
    except ImportError as error:
        raise MissingExtraError(
            f"storage '{parse_url(url)}': its driver is not installed: {error} (for PostgreSQL: "
            "pip install 'routedk[postgres]')"
        ) from None
    except RuntimeError as error:  # tables of another version; Optuna says what to do
        raise RouteDKError(f"storage '{parse_url(url)}': {error}") from None
    except SQLAlchemyError as error:
        # Workers that start at the same time race to create the tables and to fill them.
        raced = isinstance(error, IntegrityError) or "exists" in str(error)
        if attempt == _ATTEMPTS or not raced:
            raise
        time.sleep(0.2 * attempt)
        return _database(url, heartbeat, attempt + 1)
