"""Predictions on disk: JSONL, one session per line, checked against the sessions they are for."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from routedk.data.records import BundleRecord, bundle_records
from routedk.data.validation import Id, checked
from routedk.errors import DataError
from routedk.files import read_jsonl, write_jsonl_records
from routedk.types import Answer, Bundle, Session

_HINT = 'expected {"session_id": id, "bundles": [{"items": [ids], "intent": text}]}'
_SHOWN = 5


class _Line(BaseModel):
    session_id: Id
    bundles: list[BundleRecord]


_LINE = TypeAdapter(_Line)


def make_answer(session_id: str, bundles: Iterable[tuple[Sequence[str], str]]) -> Answer:
    """Make an answer from raw bundles; invalid ones are dropped, with the reason.

    Args:
        session_id: The session.
        bundles: Item ids of the session, possibly repeated, with the intent.
    """
    return _answer(session_id, [BundleRecord(items=[*ids], intent=name) for ids, name in bundles])


def _answer(session_id: str, records: Iterable[BundleRecord]) -> Answer:
    kept: dict[frozenset[str], Bundle] = {}
    dropped = []
    for record in records:
        items = list(dict.fromkeys(record.items))
        if len(items) < 2:
            dropped.append(f"fewer than two items: {items}")
        elif frozenset(items) in kept:
            dropped.append(f"an earlier bundle again: {items}")
        else:
            kept[frozenset(items)] = record.model_copy(update={"items": items}).bundle()
    return Answer(session_id, tuple(kept.values()), dropped=tuple(dropped))


def read_predictions(path: str | Path, sessions: Iterable[Session]) -> list[Answer]:
    """Read a predictions file.

    Args:
        path: JSONL file; ids may be texts or whole numbers, ``intent`` may be missing.
        sessions: The sessions of the data set; the file may leave out any of them.

    Raises:
        DataError: A line is not in the layout, a session comes twice, or the file names a session
            or items that do not exist.
    """
    known = {session.id: {item.id for item in session.items} for session in sessions}
    lines: dict[str, int] = {}
    answers = []
    for number, record in read_jsonl(path):
        line = checked(_LINE, record, path=path, line=number, hint=_HINT)
        name = line.session_id
        problem = hint = ""
        if name in lines:
            problem = f"session {name!r} again, after line {lines[name]}"
            hint = "one line per session, with all its bundles"
        elif name not in known:
            problem = f"the data set has no session {name!r}"
            hint = "predict sessions of this data set; --untitled drop removes sessions too"
        elif foreign := [i for one in line.bundles for i in one.items if i not in known[name]]:
            problem = f"session {name!r} has no item {', '.join(map(repr, foreign[:_SHOWN]))}"
            hint = "predict items of the session; --untitled drop removes untitled ones"
        if problem:
            raise DataError(problem, path=path, line=number, hint=hint)
        lines[name] = number
        answers.append(_answer(name, line.bundles))
    return answers


def write_predictions(path: str | Path, answers: Iterable[Answer]) -> None:
    """Write answers as JSONL, atomically, in their order."""
    write_jsonl_records(path, map(prediction_record, answers))


def prediction_record(answer: Answer) -> dict[str, Any]:
    """One line of a predictions file."""
    return {"session_id": answer.session_id, "bundles": bundle_records(answer.bundles)}
