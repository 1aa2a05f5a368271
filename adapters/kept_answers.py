"""`KeptAnswers`: the answers of one program and model, kept on disk so that runs can reuse them."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, TypeAdapter

from routedk.artifacts import content_hash
from routedk.data.records import session_to_record
from routedk.data.validation import checked
from routedk.files import JsonlLog, lines_of, open_file
from routedk.parsing import parse_jsonl
from routedk.types import Answer, Session

_LOGS = "answers-*.jsonl"
_HINT = "remove the line: its session will be answered again"


class _Line(BaseModel):
    key: str
    answer: Answer


_LINE = TypeAdapter(_Line)


class KeptAnswers:
    """Stores answers by session, ignoring gold; threads may share it.

    Created by `open_answers`.

    Args:
        folder: Where the logs of all processes are.
        log: This process's log.
    """

    def __init__(self, folder: Path, log: JsonlLog) -> None:
        self._log = log
        self._answers: dict[str, Answer] = {}
        for path in sorted(folder.glob(_LOGS)):
            # An unterminated last line is one that another process is writing, or died writing.
            with open_file(path) as file:
                whole = filter(lambda line: line.endswith(b"\n"), lines_of(file))
                for number, record in parse_jsonl(whole, path=path):
                    line = checked(_LINE, record, path=path, line=number, hint=_HINT)
                    self._answers[line.key] = line.answer

    def get(self, session: Session) -> Answer | None:
        """The answer to a session; None if the logs had none when they were opened."""
        return self._answers.get(_key(session))

    def add(self, session: Session, answer: Answer) -> None:
        """Keep an answer; on return it is on disk.

        Raises:
            DataError: It cannot be written.
        """
        self._log.append(_Line(key=_key(session), answer=answer).model_dump())


@contextmanager
def open_answers(folder: Path) -> Iterator[KeptAnswers]:
    """Open the answers in a folder.

    Processes that have them open at the same time write a log each, and read the others' logs on
    opening. Processes that run one after the other share the first log.

    Raises:
        DataError: A log cannot be read or written, or a complete line of it is invalid.
    """
    for number in count():
        try:
            held = FileLock(
                folder / f"answers-{number}.lock", timeout=0, thread_local=False
            ).acquire()
            break
        except Timeout:
            continue
    with held, JsonlLog(folder / _LOGS.replace("*", str(number))) as log:
        yield KeptAnswers(folder, log)


def _key(session: Session) -> str:
    return content_hash(session_to_record(session) | {"bundles": []})
