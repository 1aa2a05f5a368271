"""Answers and rules that a teacher gave elsewhere, read from files line by line.

A line is one of three::

    {"session_id": "s1", "bundles": [{"items": ["a", "b"], "intent": "tea", "why": "..."}],
     "item_intents": {"a": "tea", "b": "tea"}}
    {"text": "Bundle kettles with cups.", "sessions": ["s1", "s2"]}
    {"custom_id": "s1", "response": {"body": {"choices": [{"message": {"content": "..."}}]}}}

The first may bring its own ``items``; the third is a result of an OpenAI batch, whose requests
`routedk.programs.distill_plan.write_requests` writes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import AliasPath, BaseModel, Field, TypeAdapter

from routedk.data.records import session_from_record
from routedk.data.validation import Id, Text, checked
from routedk.errors import AnswerError, DataError, one_line
from routedk.files import lines_of, open_file
from routedk.parsing import scan_jsonl
from routedk.programs.teachers.answer_distiller import read_statement
from routedk.types import NotEmpty, Provenance, Rule, Session, TeacherAnswer

_Record: TypeAlias = Mapping[str, Any]


class _Rule(BaseModel):
    text: NotEmpty
    sessions: list[Id] = []


class _Answer(BaseModel):
    bundles: list[Any]
    item_intents: dict[Id, Text] = {}


class _Body(BaseModel):
    model: str = ""
    content: str = Field(validation_alias=AliasPath("choices", 0, "message", "content"))
    tokens: int = Field(0, ge=0, validation_alias=AliasPath("usage", "total_tokens"))


_RULE, _ANSWER, _BODY = TypeAdapter(_Rule), TypeAdapter(_Answer), TypeAdapter(_Body)


class RecordedAnswers:
    """Reads what is recorded about a sample of sessions, and reports what cannot be used.

    Args:
        pool: The sessions of the split that is distilled.
        sample: The sessions of the pool whose answers are used.
        held_out: The data set's other sessions: nothing is learned from their answers or rules,
            nor from an answer that brings its own items if these are items of theirs.
        teacher: Name of the teacher; if empty, the one in the line, or else the file's name.

    Attributes:
        answers: In the order of the files, one per session.
        rules: In the order of the files.
        bad_lines: Lines that could not be used, each with ``file``, ``line`` and ``problem``.
        left_out: Number of valid lines that were left out, by reason.
        dropped: Unused parts of usable answers, each with ``session_id`` and ``dropped``.
    """

    def __init__(
        self,
        pool: Sequence[Session],
        sample: Sequence[Session],
        held_out: Sequence[Session] = (),
        teacher: str = "",
    ) -> None:
        self.answers: list[TeacherAnswer] = []
        self.rules: list[Rule] = []
        self.bad_lines: list[dict[str, str | int]] = []
        self.left_out: Counter[str] = Counter()
        self.dropped: list[dict[str, str]] = []
        self._known = {session.id: session for session in [*held_out, *pool]}
        self._sampled = {session.id for session in sample}
        self._others = {session.id for session in held_out} - {session.id for session in pool}
        self._items = _item_ids(*pool)
        self._other_items = _item_ids(*held_out)
        self._teacher = teacher
        self._seen: dict[str, str] = {}

    def read(self, paths: Sequence[Path]) -> None:
        """Read files.

        Raises:
            DataError: A file cannot be read, or none of the lines can be used.
        """
        for path in paths:
            with open_file(path) as file:
                for line, record in scan_jsonl(lines_of(file), path=path):
                    try:
                        piece, dropped = self._piece(record, path)
                        self._add(piece, dropped, f"{path}:{line}")
                    except DataError as error:
                        bad: dict[str, str | int] = {"file": str(path), "line": line}
                        self.bad_lines.append({**bad, "problem": one_line(error.problem)})
        if not self.answers and not self.rules:
            names = ", ".join(map(str, paths))
            reasons = [f"{count} left out: {why}" for why, count in self.left_out.items()]
            if self.bad_lines:
                first = self.bad_lines[0]
                place = f"{Path(str(first['file'])).name}:{first['line']}"
                reasons.insert(0, f"{len(self.bad_lines)} bad lines, {place}: {first['problem']}")
            found = "; ".join(reasons) or "empty"
            raise DataError(f"no line can be used: {found}", path=names, hint="see docs/files.md")

    def _add(self, piece: TeacherAnswer | Rule, dropped: Sequence[str], place: str) -> None:
        if isinstance(piece, Rule):
            what = f"the rule {piece.text.casefold()!r}"
        else:
            what = f"an answer to session {piece.session_id!r}"
        if what in self._seen:
            raise DataError(f"{what} came before, in {self._seen[what]}")
        self._seen[what] = place
        if reason := self._reason(piece):
            self.left_out[reason] += 1
        elif isinstance(piece, Rule):
            self.rules.append(piece)
        else:
            self.answers.append(piece)
            self.dropped += [{"session_id": piece.session_id, "dropped": text} for text in dropped]

    def _reason(self, piece: TeacherAnswer | Rule) -> str:
        """Why nothing is learned from a valid line; empty if something is."""
        if self._others.intersection(piece.provenance.sessions):
            return "of other sessions of the data set"
        if isinstance(piece, Rule):
            return ""
        items = {item.id for item in piece.items}
        # A session composed from held-out sessions may hold items that training ones also have.
        if items and (items <= self._other_items or items & (self._other_items - self._items)):
            return "composed of items of other sessions of the data set"
        return "" if items or piece.session_id in self._sampled else "of sessions not sampled"

    def _piece(
        self, record: _Record | DataError, path: Path
    ) -> tuple[TeacherAnswer | Rule, Sequence[str]]:
        """What a line states, and which parts of it were dropped."""
        if isinstance(record, DataError):
            raise record
        if "custom_id" in record:
            return self._result(record, path)
        if "session_id" in record:
            return self._answer(record, path), ()
        if "text" in record:
            rule = checked(_RULE, record, path=path)
            for name in rule.sessions:
                self._session(name)
            source = self._source(record.get("teacher"), rule.sessions, path)
            return Rule(text=rule.text, provenance=source), ()
        raise DataError("no session_id, custom_id or text")

    def _answer(self, record: _Record, path: Path) -> TeacherAnswer:
        stated = checked(_ANSWER, record, path=path)
        name, own = str(record["session_id"]), record.get("items")
        session = self._session(name) if own is None else self._known.get(name)
        items = own if own is not None else [{"id": item_id} for item_id in _item_ids(session)]
        read = session_from_record({**record, "items": items})
        if session is not None and _item_ids(read) != _item_ids(session):
            raise DataError(f"session {name!r} has other items in the data set")
        if foreign := sorted(stated.item_intents.keys() - _item_ids(read)):
            raise DataError(f"session {name!r}: item_intents names {foreign}, not in the session")
        if len(set(read.gold)) < len(read.gold):
            raise DataError(f"session {name!r}: a bundle is stated twice")
        return TeacherAnswer(
            session_id=name,
            bundles=read.bundles or (),
            item_intents=stated.item_intents,
            items=read.items if session is None else (),
            provenance=self._source(record.get("teacher"), [name], path),
        )

    def _result(self, record: _Record, path: Path) -> tuple[TeacherAnswer, Sequence[str]]:
        """The result of one request of a batch."""
        name = str(record["custom_id"])
        session = self._session(name)
        response = _dict(record.get("response"))
        body, status = response.get("body"), response.get("status_code", 200)
        error = record.get("error") or _dict(body).get("error")
        failed = status not in range(200, 300)
        if error or failed:
            told = _dict(error).get("message") or _dict(error).get("code") or error
            reasons = [f"status {status}"] * failed + [str(told)] * bool(told)
            raise DataError(f"the request for session {name!r} failed: {': '.join(reasons)}")
        read = checked(_BODY, body, path=path, about="response.body")
        try:
            stated = read_statement(read.content, session)
        except AnswerError as failure:
            raise DataError(f"session {name!r}: {failure}") from None
        answer = TeacherAnswer(
            session_id=name,
            bundles=stated.bundles,
            item_intents=stated.item_intents,
            provenance=self._source(read.model, [name], path, read.tokens),
        )
        return answer, stated.dropped

    def _session(self, name: str) -> Session:
        if name not in self._known:
            raise DataError(f"unknown session {name!r}")
        return self._known[name]

    def _source(
        self, teacher: Any, sessions: Sequence[str], path: Path, tokens: int = 0
    ) -> Provenance:
        said = teacher if isinstance(teacher, str) else ""
        name = self._teacher or said or path.name
        return Provenance(teacher=name, sessions=tuple(sessions), tokens=tokens, cost=None)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _item_ids(*sessions: Session | None) -> set[str]:
    return {item.id for session in sessions if session is not None for item in session.items}
