"""Opens what a review needs, and serves the page until a signal ends it."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routedk.review.desk import Desk
from routedk.rules import read_rules
from routedk.server.config import ListenConfig
from routedk.server.run import need_extra, run
from routedk.types import Answer, Session

logger = logging.getLogger(__name__)

_PATIENCE = 10.0


@dataclass(frozen=True, kw_only=True)
class ReviewConfig(ListenConfig):
    """Settings of a review.

    Args:
        token_file: File with the token that browsers must send as the password.
        rules: TOML file with a catalogue's rules: bundles are proposed under them if none are
            given, and those that break one are marked.
        user: Who reviews if a browser gives no name; unset: the login name, $USER.

    Raises:
        SettingError: A value is not allowed, or a required token is missing.
    """

    port: int = 8001
    rules: Path | None = None
    user: str | None = None


def review(
    sessions: Sequence[Session], answers: Iterable[Answer], output: Path, config: ReviewConfig
) -> None:
    """Serve the page until SIGTERM or SIGINT; every edit is on disk before it is shown.

    Args:
        sessions: What is reviewed.
        answers: The proposed bundles; may be a generator.
        output: The gold file.
        config: Settings.

    Raises:
        DataError: As `ReviewLog`.
        MissingExtraError: The server's libraries are not installed.
        OSError: The server cannot listen on the address.
    """
    need_extra("serve", "fastapi", "prometheus_client", "uvicorn")
    rules = read_rules(config.rules) if config.rules else None
    user = config.user or os.environ.get("USER") or "reviewer"

    def load(url: str) -> Any:
        from routedk.review.app import make_app

        desk = Desk(sessions, answers, output, rules)
        logger.info("review at %s", url)
        return make_app(desk, user, config.token())

    run(config, load, patience=_PATIENCE)
