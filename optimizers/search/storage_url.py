"""What a storage is called: its URL, the file behind it, and how it is shown."""

import re
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from routedk.errors import SettingError

JOURNAL = "journal:"


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
    """The URL of a study's storage: as given, or an SQLite file of the study's name here.

    Raises:
        SettingError: The name is none, or nothing can be kept at this URL.
    """
    return check_url(url or f"sqlite:///{check_name(name)}.db")


def check_url(url: str) -> str:
    """A URL at which studies can be kept; whether anything answers there is not tried.

    Raises:
        SettingError: It is no URL, or of a database in memory.
    """
    parsed = _parsed(url)
    if parsed is None and not url.removeprefix(JOURNAL):
        raise not_allowed(url)
    if parsed is not None and parsed.get_backend_name() == "sqlite":
        if parsed.host:  # sqlite://FILE
            raise not_allowed(url)
        file = parsed.database or ":memory:"
        if ":memory:" in file or parsed.query.get("mode") == "memory":
            raise SettingError(
                f"storage {url!r}: a database in memory is gone with the command, and with it the "
                "study; name a file, sqlite:///FILE"
            )
    return url


def not_allowed(url: str) -> SettingError:
    """The error of a URL that is none."""
    return SettingError(
        f"storage {shown_url(url)!r}: allowed are sqlite:///FILE, any other URL of SQLAlchemy such "
        "as postgresql://USER@HOST/NAME, and journal:FILE"
    )


def shown_url(url: str) -> str:
    """A storage's URL as it may be shown: without its password."""
    if url.startswith(JOURNAL):
        return url
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return re.sub(r"//[^@/]*@", "//***@", url)


def password_of(url: str) -> str:
    """The password in a URL; empty where there is none."""
    parsed = _parsed(url)
    return "" if parsed is None else str(parsed.password or "")


def file_of(url: str) -> Path | None:
    """The file that a storage is; None for a server.

    Raises:
        SettingError: It is no URL.
    """
    parsed = _parsed(url)
    if parsed is None:
        return Path(url.removeprefix(JOURNAL))
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    if "uri" in parsed.query and parsed.database.startswith("file:"):
        return Path(unquote(re.sub(r"^file:(//[^/]*)?|[?#].*", "", parsed.database)))
    return Path(parsed.database)


def _parsed(url: str) -> URL | None:
    """None for a journal."""
    if url.startswith(JOURNAL):
        return None
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # ValueError: of a port that is no number
        raise not_allowed(url) from None
