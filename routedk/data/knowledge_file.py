"""A knowledge base on disk: JSONL, one piece per line, each with provenance.

Example lines, provenance shortened::

    {"kind": "pattern", "categories": ["Kettles", "Tea"], "support": 0.1, "confidence": 0.6,
     "lift": 4.2, "provenance": {"teacher": "annotation", "sessions": ["s1", "s7"]}}
    {"kind": "rule", "text": "For brewing coffee ...", "provenance": {...}}
    {"kind": "thought", "session_id": "s1", "text": "kettle, dripper ...", "provenance": {...}}
    {"kind": "answer", "session_id": "s1", "bundles": [{"item_ids": ["a", "b"], "intent": "tea",
     "kind": "complements", "why": "..."}], "item_intents": {"a": "tea"}, "provenance": {...}}
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from routedk.data.validation import checked
from routedk.errors import DataError
from routedk.files import read_jsonl, write_jsonl_records
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, TeacherAnswer, Thought

_KINDS = {"pattern": Pattern, "rule": Rule, "thought": Thought, "answer": TeacherAnswer}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {k: TypeAdapter(kind) for k, kind in _KINDS.items()}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def sources_of(knowledge: KnowledgeBase) -> frozenset[str]:
    """List the ids of all sessions that any piece of knowledge was made from."""
    return frozenset(name for piece in knowledge.pieces for name in piece.provenance.sessions)


def joint_cost(sources: Iterable[Provenance]) -> float | None:
    """The total cost of these sources; None if the cost of one is unknown."""
    costs = [source.cost for source in sources]
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 8) if len(known) == len(costs) else None


def write_knowledge(knowledge: KnowledgeBase, path: str | Path) -> None:
    """Write a knowledge base as JSONL, atomically: patterns, rules, thoughts, answers."""
    records = (
        {"kind": _NAMES[type(one)], **asdict(one, dict_factory=_stated)} for one in knowledge.pieces
    )
    write_jsonl_records(path, records)


def _stated(found: list[tuple[str, Any]]) -> dict[str, Any]:
    """Leave out what no teacher states of a bundle: rules' changes and an explanation."""
    return {name: value for name, value in found if name not in ("changed", "explanation")}


def read_knowledge(path: str | Path) -> KnowledgeBase:
    """Read a knowledge base; order is kept within each kind.

    Raises:
        DataError: The file cannot be read, a line is not a piece of knowledge, or a session has two
            thoughts or two answers; the message names file and line.
    """
    found: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    seen: set[tuple[str, str]] = set()
    for line, record in read_jsonl(path):
        kind = record.pop("kind", None)
        if not isinstance(kind, str) or kind not in _KINDS:
            problem, hint = f"kind is {kind!r}", f"allowed are {', '.join(_KINDS)}"
            raise DataError(problem, path=path, line=line, hint=hint)
        piece = checked(_ADAPTERS[kind], record, path=path, line=line, about=kind)
        if isinstance(piece, Thought | TeacherAnswer):
            if (kind, piece.session_id) in seen:
                problem = f"session {piece.session_id!r} has its {kind} already"
                raise DataError(problem, path=path, line=line, hint="keep one of the two")
            seen.add((kind, piece.session_id))
        found[kind].append(piece)
    return KnowledgeBase(**{f"{kind}s": tuple(pieces) for kind, pieces in found.items()})
