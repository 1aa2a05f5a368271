"""What must be the same wherever a study goes on."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from routedk.errors import SettingError
from routedk.optimizers.search.storage_url import shown_url
from routedk.types import Session

IDENTITY = "routedk"
"""The study's user attribute that holds it."""
SAME_DATA = (
    "give --data and its options as they were given to the first routedk search of this study"
)


def not_ours(name: str, url: str) -> SettingError:
    """The error where a study does not say how it was made."""
    return SettingError(
        f"study {name!r} in {shown_url(url)} was not made by routedk search: name another"
    )


def sessions_digest(sessions: Iterable[Session]) -> str:
    """A hash of all that sessions hold, in their order."""
    digest = hashlib.sha256()
    for session in sessions:
        gold = None if session.bundles is None else [asdict(bundle) for bundle in session.bundles]
        record = [session.id, [asdict(item) for item in session.items], gold]
        digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:16]


def data_record(
    train: Sequence[Session],
    validation: Sequence[Session],
    test: Sequence[Session],
    *,
    seed: int,
    options: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """What a study keeps of its data: what must be the same, and what tells where it is not.

    Args:
        train: Training sessions.
        validation: Those validation sessions that trials are scored on.
        test: Test sessions, which no trial sees; none where there is no such split yet.
        seed: That the sessions were split by.
        options: How they were read, by option; of a file its name alone.
    """
    return {
        "digest": sessions_digest([*train, *validation]),
        "seed": seed,
        "train": _part(train),
        "validation": _part(validation),
        "test": _part(test) if test else None,
        "options": dict(options or {}),
    }


def is_data_record(data: Any) -> bool:
    """Whether this is a `data_record`, of whatever version, and nothing of a caller's own."""
    return isinstance(data, Mapping) and {"seed", "digest"} <= data.keys()


def data_difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """What is different about training or validation sessions, in words; empty where nothing is.

    Args:
        theirs: A `data_record`; one of an earlier version, which has digest and seed alone, too.
        mine: Another.
    """
    if theirs["seed"] != mine["seed"]:
        return f"--seed {theirs['seed']}, not {mine['seed']}"
    if theirs["digest"] == mine["digest"]:
        return ""
    said = [
        part_difference(what, theirs.get(name), mine.get(name))
        for name, what in (("train", "training"), ("validation", "validation"))
    ]
    options = theirs.get("options", {})
    said += [
        f"--{name.replace('_', '-')} {options[name] or 'none'}, not {value or 'none'}"
        for name, value in mine.get("options", {}).items()
        if options.get(name, value) != value
    ]
    return ": ".join(filter(None, ("other sessions", "; ".join(filter(None, said)))))


def part_difference(
    what: str, theirs: Mapping[str, Any] | None, mine: Mapping[str, Any] | None
) -> str:
    """What is different about one split; empty where nothing is, or one is not known.

    Args:
        what: Which split it is, for the words.
        theirs: Its entry in a `data_record`.
        mine: Another.
    """
    if theirs is None or mine is None or theirs == mine:
        return ""
    count, here = theirs["sessions"], mine["sessions"]
    if count != here:
        return f"{count} {what} sessions, not {here}"
    return f"{count} {what} sessions, not these {here}, which have other ids, items, gold or order"


def _part(sessions: Sequence[Session]) -> dict[str, Any]:
    return {"sessions": len(sessions), "digest": sessions_digest(sessions)}


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
    mine = json.loads(json.dumps(mine))
    if is_data_record(theirs.get("data")) and is_data_record(mine.get("data")):
        if found := data_difference(theirs["data"], mine["data"]):
            raise SettingError(
                f"study {name!r} was made with {found}: {SAME_DATA}, --max-validation among them"
            )
        theirs, mine = ({k: v for k, v in one.items() if k != "data"} for one in (theirs, mine))
    if found := _difference("", theirs, mine):
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
