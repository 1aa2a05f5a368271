"""What must be the same wherever a study is resumed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from routedk.artifacts import content_hash
from routedk.data.records import session_to_record
from routedk.errors import SettingError
from routedk.types import Session

IDENTITY = "routedk"
"""The study's user attribute that holds it."""


def sessions_record(sessions: Sequence[Session]) -> str:
    """The number of sessions and a hash of all that they hold, in their order."""
    digest = content_hash([session_to_record(session) for session in sessions])
    return f"{len(sessions)} sessions, {digest[:12]}"


def check_identity(name: str, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Check that a study is resumed as it was made.

    Args:
        name: The study's, for the message.
        theirs: What it was made with; empty where something else made it.
        mine: What it would be resumed with.

    Raises:
        SettingError: They differ; the message names the first difference.
    """
    if not theirs:
        raise SettingError(f"study {name!r} was not made by routedk search: name another")
    # JSON, as it comes back from a storage.
    mine = json.loads(json.dumps(mine))
    for key in mine:
        if theirs.get(key) != mine[key]:
            raise SettingError(
                f"study {name!r} was made with another {key}: {theirs.get(key)}, not {mine[key]}; "
                "resume it with the data and settings it was made with, or name another study"
            )
