"""Predictions on disk, as JSONL or Parquet, checked against the sessions they are for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from routedk.data.native import read_parquet
from routedk.data.records import BundleRecord, Reasons, bundle_records
from routedk.data.validation import Id, Text, checked
from routedk.errors import DataError
from routedk.files import atomic_write, read_jsonl, write_jsonl_records
from routedk.types import Answer, Bundle, Session, Share

_HINT = 'expected {"session_id": id, "bundles": [{"items": [ids], "intent": text}]}'
_SHOWN = 5


class _Line(BaseModel):
    session_id: Id
    bundles: list[BundleRecord]
    confidence: Share | None = None
    error: Text = ""
    changed: Reasons = ()


_LINE = TypeAdapter(_Line)


def make_answer(session_id: str, bundles: Iterable[tuple[Sequence[str], str]]) -> Answer:
    """Make an answer from raw bundles; invalid ones are dropped, with the reason.

    Args:
        session_id: The session.
        bundles: Item ids of the session, possibly repeated, with the intent.
    """
    records = [BundleRecord(items=[*ids], intent=name) for ids, name in bundles]
    return _answer(_Line(session_id=session_id, bundles=records))


def _answer(line: _Line) -> Answer:
    kept: dict[frozenset[str], Bundle] = {}
    dropped = []
    for record in line.bundles:
        items = list(dict.fromkeys(record.items))
        if len(items) < 2:
            dropped.append(f"fewer than two items: {items}")
        elif frozenset(items) in kept:
            dropped.append(f"an earlier bundle again: {items}")
        else:
            kept[frozenset(items)] = record.model_copy(update={"items": items}).bundle()
    return Answer(
        line.session_id,
        tuple(kept.values()),
        error=line.error,
        dropped=tuple(dropped),
        confidence=line.confidence,
        changed=line.changed,
    )


def read_predictions(path: str | Path, sessions: Iterable[Session]) -> list[Answer]:
    """Read a predictions file.

    Args:
        path: JSONL file, or a folder of files from `write_part`; ids may be strings or integers,
            ``intent`` may be missing.
        sessions: The sessions of the data set; the file may leave out any of them.

    Raises:
        DataError: A line is not in the layout, a session appears twice, or the file names a
            session or items that do not exist. A line with an error may name any session.
    """
    known = {session.id: {item.id for item in session.items} for session in sessions}
    lines: dict[str, int] = {}
    answers = []
    for number, record in _records(Path(path)):
        line = checked(_LINE, record, path=path, line=number, hint=_HINT)
        name = line.session_id
        problem = hint = ""
        if name in lines:
            problem = f"session {name!r} again, after line {lines[name]}"
            hint = "one line per session, with all its bundles"
        elif name not in known and line.error:
            continue  # It could not be read, or was dropped.
        elif name not in known:
            problem = f"the data set has no session {name!r}"
            hint = "predict sessions of this data set; --untitled drop removes sessions too"
        elif foreign := [i for one in line.bundles for i in one.items if i not in known[name]]:
            problem = f"session {name!r} has no item {', '.join(map(repr, foreign[:_SHOWN]))}"
            hint = "predict items of the session; --untitled drop removes untitled ones"
        if problem:
            raise DataError(problem, path=path, line=number, hint=hint)
        lines[name] = number
        answers.append(_answer(line))
    return answers


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The records of a file, or of a folder of parts, with their numbers."""
    if not path.is_dir():
        return read_jsonl(path)
    return enumerate(_rows(path), start=1)


def _rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    if not (parts := sorted(folder.glob("*.parquet"))):
        raise DataError("holds no Parquet file", path=folder, hint="name a file of predictions")
    for part in parts:
        with part.open("rb") as file:
            for _, row in read_parquet(file, part):
                yield row


def write_predictions(path: str | Path, answers: Iterable[Answer]) -> None:
    """Write answers as JSONL, atomically, in their order."""
    write_jsonl_records(path, map(prediction_record, answers))


def write_part(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write prediction records as Parquet, atomically; missing values are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, share, texts = pa.string(), pa.float64(), pa.list_(pa.string())
    bundle = {"items": texts, "intent": text, "kind": text, "kind_confidence": share}
    bundle |= {"confidence": share, "why": text, "changed": texts, "ties": texts}
    bundle |= {"rule": text, "similar": text, "similar_intent": text}
    line = {"session_id": text, "bundles": pa.list_(pa.struct(bundle)), "confidence": share}
    schema = pa.schema(line | {"changed": texts, "error": text})
    table = pa.Table.from_pylist([*records], schema=schema)
    with atomic_write(path, binary=True) as file:
        pq.write_table(table, file)


def prediction_record(answer: Answer) -> dict[str, Any]:
    """One line of a predictions file; confidence, changed and error only if there are any."""
    bundles = bundle_records(answer.bundles)
    record: dict[str, Any] = {"session_id": answer.session_id, "bundles": bundles}
    if answer.confidence is not None:
        record["confidence"] = answer.confidence
    if answer.changed:
        record["changed"] = list(answer.changed)
    return record | ({"error": answer.error} if answer.error else {})
