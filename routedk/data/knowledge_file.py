"""A knowledge base on disk: JSONL, one pattern, rule or thought a line, each with provenance.

Example lines, provenance shortened::

    {"kind": "pattern", "categories": ["Kettles", "Tea"], "support": 0.1, "confidence": 0.6,
     "lift": 4.2, "provenance": {"teacher": "annotation", "sessions": ["s1", "s7"]}}
    {"kind": "rule", "text": "For brewing coffee ...", "provenance": {...}}
    {"kind": "thought", "session_id": "s1", "text": "kettle, dripper ...", "provenance": {...}}
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from routedk.errors import DataError
from routedk.files import read_jsonl, write_jsonl_records
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, Thought

_Share = Annotated[float, Field(ge=0, le=1)]
_Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Provenance(_Strict):
    teacher: _Text
    sessions: tuple[str, ...] = ()
    prompt_hash: str = ""
    tokens: int = Field(default=0, ge=0)
    cost: float | None = Field(default=0.0, ge=0)


class _Pattern(_Strict):
    kind: Literal["pattern"]
    categories: Annotated[tuple[str, ...], Field(min_length=2)]
    support: _Share
    confidence: _Share
    lift: float = Field(ge=0)
    provenance: _Provenance


class _Rule(_Strict):
    kind: Literal["rule"]
    text: _Text
    provenance: _Provenance


class _Thought(_Strict):
    kind: Literal["thought"]
    session_id: _Text
    text: _Text
    provenance: _Provenance


_Record = Annotated[_Pattern | _Rule | _Thought, Field(discriminator="kind")]
_RECORD: TypeAdapter[_Pattern | _Rule | _Thought] = TypeAdapter(_Record)


def _records(knowledge: KnowledgeBase) -> Iterator[dict[str, Any]]:
    for pattern in knowledge.patterns:
        yield {"kind": "pattern", **asdict(pattern)}
    for rule in knowledge.rules:
        yield {"kind": "rule", **asdict(rule)}
    for thought in knowledge.thoughts:
        yield {"kind": "thought", **asdict(thought)}


def sources_of(knowledge: KnowledgeBase) -> frozenset[str]:
    """Ids of all sessions that any piece of knowledge was made from."""
    pieces: tuple[Pattern | Rule | Thought, ...]
    pieces = (*knowledge.patterns, *knowledge.rules, *knowledge.thoughts)
    return frozenset(name for piece in pieces for name in piece.provenance.sessions)


def joint_cost(sources: Iterable[Provenance]) -> float | None:
    """What pieces cost together; None where the cost of one is not known."""
    costs = [source.cost for source in sources]
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 8) if len(known) == len(costs) else None


def write_knowledge(knowledge: KnowledgeBase, path: str | Path) -> None:
    """Write a knowledge base as JSONL, atomically: patterns, then rules, then thoughts."""
    write_jsonl_records(path, _records(knowledge))


def read_knowledge(path: str | Path) -> KnowledgeBase:
    """Read a knowledge base; order is kept within each kind.

    Raises:
        DataError: The file cannot be read, or a line is no pattern, rule or thought, or a
            session has two thoughts; the message names file and line.
    """
    patterns: list[Pattern] = []
    rules: list[Rule] = []
    thoughts: dict[str, Thought] = {}
    for line, values in read_jsonl(path):
        record = _checked(values, path, line)
        provenance = Provenance(**record.provenance.model_dump())
        if isinstance(record, _Pattern):
            fields = record.model_dump(exclude={"kind", "provenance"})
            patterns.append(Pattern(**fields, provenance=provenance))
        elif isinstance(record, _Rule):
            rules.append(Rule(text=record.text, provenance=provenance))
        else:
            name = record.session_id
            if name in thoughts:
                problem = f"session {name!r} has a thought already"
                raise DataError(problem, path=path, line=line, hint="keep one of the two")
            thoughts[name] = Thought(session_id=name, text=record.text, provenance=provenance)
    return KnowledgeBase(
        patterns=tuple(patterns), rules=tuple(rules), thoughts=tuple(thoughts.values())
    )


def _checked(values: dict[str, Any], path: str | Path, line: int) -> _Pattern | _Rule | _Thought:
    if values.get("kind") not in ("pattern", "rule", "thought"):
        raise DataError(
            f"kind is {values.get('kind')!r}",
            path=path,
            line=line,
            hint="allowed are pattern, rule, thought",
        )
    try:
        return _RECORD.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        # The first part of a place is the kind, which discriminates.
        place = ".".join(map(str, first["loc"][1:]))
        raise DataError(
            f"{values['kind']}: {place}: {first['msg']}",
            path=path,
            line=line,
            hint="mend or remove this line",
        ) from None
