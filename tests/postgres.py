"""A PostgreSQL server for tests: a running one, or a temporary one."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, make_url

_PATIENCE = 120
_NAMED = "ROUTEDK_POSTGRES"


@contextmanager
def postgres_server() -> Iterator[URL]:
    """A server that can create databases: the one named, a local one, or a temporary one.

    The test is skipped where there is none of them.
    """
    if named := os.environ.get(_NAMED):
        yield make_url(named)
        return
    for running in _local():
        if _may_create(running):
            yield running
            return
    with _own() as own:
        yield own


@contextmanager
def database(server: URL) -> Iterator[str]:
    """The URL of a new database, dropped afterwards.

    Args:
        server: Where.
    """
    name = f"routedk_test_{secrets.token_hex(4)}"
    with _connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with _connect(server) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _connect(server: URL) -> Any:
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True, connect_timeout=10)


def _local() -> Iterator[URL]:
    for host in ("/var/run/postgresql", "/tmp", "localhost"):
        if host.startswith("/") and not Path(host, ".s.PGSQL.5432").exists():
            continue
        yield URL.create("postgresql", database="postgres", query={"host": host})


def _may_create(server: URL) -> bool:
    asked = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
    try:
        with _connect(server) as connection:
            return bool(connection.execute(asked).fetchone()[0])
    except psycopg.OperationalError:
        return False


@contextmanager
def _own() -> Iterator[URL]:
    """Start a temporary server on a socket in its own folder, and remove both afterwards."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found = [shutil.which("pg_ctl"), *reversed(packaged)]
    command = next((Path(path).resolve() for path in found if path), None)
    if command is None:
        pytest.skip(f"PostgreSQL is not installed: install it, or name a server in {_NAMED}")
    # PostgreSQL refuses to run as root.
    user = _unprivileged_user() if os.geteuid() == 0 else None
    # Not pytest's folder: others may not enter it, and a socket's path has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="routedk-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        data, log = folder / "data", folder / "log"
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=50"
        as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid} if user else {}
        limits = {"check": True, "timeout": _PATIENCE, "cwd": folder, "capture_output": True}

        def run(program: str, *arguments: str) -> None:
            quiet = {**limits, **as_user, "extra_groups": []} if user else limits
            subprocess.run([command.with_name(program), *arguments], **quiet)

        init = ["-D", str(data), "-U", "routedk", "--auth=trust", "--encoding=UTF8", "--no-locale"]
        run("initdb", *init, "--no-sync")
        wait = ["-D", str(data), "-w", "-t", str(_PATIENCE)]
        run("pg_ctl", *wait, "-l", str(log), "-o", options, "start")
        try:
            yield URL.create(
                "postgresql", "routedk", database="postgres", query={"host": str(folder)}
            )
        finally:
            run("pg_ctl", *wait, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    pytest.skip(f"PostgreSQL runs only as a user other than root: name a server in {_NAMED}")
