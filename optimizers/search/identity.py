"""What must be the same wherever a study goes on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from routedk.errors import SettingError
from routedk.types import Session

IDENTITY = "routedk"
"""The study's user attribute that holds it."""


def sessions_digest(sessions: Iterable[Session]) -> str:
    """A hash of all that sessions hold, in their order."""
    digest = hashlib.sha256()
    for session in sessions:
        gold = None if session.bundles is None else [asdict(bundle) for bundle in session.bundles]
        record = [session.id, [asdict(item) for item in session.items], gold]
        digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:16]


def check_identity(name: str, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Check that a study is gone on with as it was made.

    Args:
        name: The study's, for the message.
        theirs: What it was made with.
        mine: What it would go on with.

    Raises:
        SettingError: They differ; the message names the first difference.
    """
    # As it comes back from a storage.
    found = _difference("", theirs, json.loads(json.dumps(mine)))
    if found:
        raise SettingError(
            f"study {name!r} was made with another {found}; go on with it as it was made, or name "
            "another study"
        )


def _difference(place: str, theirs: Any, mine: Any) -> str:
    if theirs == mine:
        return ""
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        for key in sorted({*theirs, *mine}):
            inner = f"{place} {key}".strip()
            if found := _difference(inner, theirs.get(key), mine.get(key)):
                return found
    return f"{place}: {_short(theirs)}, not {_short(mine)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
