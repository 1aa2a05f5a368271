"""Predictions on disk: JSONL, one session a line, checked against the sessions they are for."""

import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from routedk.errors import DataError
from routedk.files import read_jsonl, write_jsonl_records
from routedk.types import Answer, Bundle, Session

_LAYOUT = 'expected {"session_id": id, "bundles": [{"items": [ids], "intent": text}]}'
_SHOWN = 5


def make_answer(session_id: str, bundles: Iterable[tuple[Sequence[str], str]]) -> Answer:
    """An answer of raw bundles; what is not a valid bundle is dropped, with the reason.

    Args:
        session_id: The session.
        bundles: Item ids of the session, possibly repeated, with the intent.
    """
    kept: dict[frozenset[str], Bundle] = {}
    dropped = []
    for item_ids, intent in bundles:
        items = tuple(dict.fromkeys(item_ids))
        if len(items) < 2:
            dropped.append(f"fewer than two items: {list(items)}")
        elif frozenset(items) in kept:
            dropped.append(f"an earlier bundle again: {list(items)}")
        else:
            kept[frozenset(items)] = Bundle(items, intent)
    return Answer(session_id, tuple(kept.values()), dropped=tuple(dropped))


def read_predictions(path: str | Path, sessions: Iterable[Session]) -> list[Answer]:
    """Read a predictions file.

    Titles play no part in it.

    Args:
        path: JSONL file; ids may be strings or whole numbers, ``intent`` may be missing.
        sessions: The sessions of the data set; the file may leave out any of them.

    Raises:
        DataError: When a line is not in the layout, a session comes twice, or the file names a
            session or items that do not exist.
    """
    by_id = {session.id: session for session in sessions}
    lines: dict[str, int] = {}
    answers = []
    unknown: dict[str, int] = {}
    for line, record in read_jsonl(path):
        session_id = _id(record.get("session_id"), "session_id", path, line)
        if session_id in lines:
            raise DataError(
                f"session {session_id!r} again, after line {lines[session_id]}",
                path=path,
                line=line,
                hint="one line a session, with all its bundles",
            )
        lines[session_id] = line
        bundles = _bundles(record, path, line)
        if session_id not in by_id:
            unknown[session_id] = line
            continue
        items = {item.id for item in by_id[session_id].items}
        foreign = dict.fromkeys(i for item_ids, _ in bundles for i in item_ids if i not in items)
        if foreign:
            raise DataError(
                f"session {session_id!r} has no {_plural('item', list(foreign))}",
                path=path,
                line=line,
                hint="predict items of the session; --untitled drop removes untitled ones",
            )
        answers.append(make_answer(session_id, bundles))
    if unknown:
        raise DataError(
            f"the data set has no {_plural('session', list(unknown))}",
            path=path,
            line=next(iter(unknown.values())),
            hint="predict sessions of this data set; --untitled drop removes sessions too",
        )
    return answers


def write_predictions(path: str | Path, answers: Iterable[Answer]) -> None:
    """Write answers as JSONL, atomically, in their order."""
    write_jsonl_records(path, map(prediction_record, answers))


def prediction_record(answer: Answer) -> dict[str, Any]:
    """One line of a predictions file."""
    return {
        "session_id": answer.session_id,
        "bundles": [
            {"items": list(bundle.item_ids), "intent": bundle.intent} for bundle in answer.bundles
        ],
    }


def _bundles(record: dict[str, Any], path: str | Path, line: int) -> list[tuple[list[str], str]]:
    """The raw bundles of one line."""
    value = record.get("bundles")
    if not isinstance(value, list):
        raise DataError(
            f"bundles is {reprlib.repr(value)}, not a list", path=path, line=line, hint=_LAYOUT
        )
    bundles = []
    for bundle in value:
        items = bundle.get("items") if isinstance(bundle, dict) else None
        if not isinstance(items, list):
            raise DataError(
                f"a bundle is {reprlib.repr(bundle)}, without a list of items",
                path=path,
                line=line,
                hint=_LAYOUT,
            )
        intent = bundle.get("intent")
        if intent is not None and not isinstance(intent, str):
            raise DataError(
                f"intent is {reprlib.repr(intent)}, not a text", path=path, line=line, hint=_LAYOUT
            )
        bundles.append(([_id(item, "item", path, line) for item in items], intent or ""))
    return bundles


def _id(value: object, name: str, path: str | Path, line: int) -> str:
    """An id as text."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(
            f"{name} is {reprlib.repr(value)}, not an id", path=path, line=line, hint=_LAYOUT
        )
    return str(value)


def _plural(noun: str, ids: list[str]) -> str:
    """Like `session '7'` or `sessions '7', '9'`, with the first few ids."""
    shown = ", ".join(map(repr, ids[:_SHOWN])) + (
        f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    )
    return f"{noun}{'s' if len(ids) > 1 else ''} {shown}"
