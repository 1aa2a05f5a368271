"""The journal's file: one line for each answered call of a teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routedk.errors import DataError
from routedk.files import JsonlLog
from routedk.programs.journal.budget import Tally


class KeptAnswer(BaseModel):
    """One answered call.

    Args:
        key: SHA-256 of the question, in hexadecimal.
        run: Key of the run that paid for it.
        text: The answer.
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
        cost: Its price in US dollars; None where the model's price is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: str
    run: str
    text: str
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    cost: float | None = Field(ge=0)

    @property
    def tally(self) -> Tally:
        """What the call came to."""
        return Tally(1, self.input_tokens, self.output_tokens, self.cost)


class Journal:
    """The answers of one teacher; threads may share it. Made by `open_journal`.

    Args:
        log: Its file.

    Raises:
        DataError: A line is not an answer.
    """

    def __init__(self, log: JsonlLog) -> None:
        self._log = log
        self._answers: dict[str, KeptAnswer] = {}
        for line, record in log.records:
            answer = _answer(record, log.path, line)
            self._answers[answer.key] = answer

    def get(self, key: str) -> KeptAnswer | None:
        """The answer to a question; None where it was not asked yet."""
        return self._answers.get(key)

    def add(self, answer: KeptAnswer) -> None:
        """Keep an answer; on return it is on disk.

        Raises:
            DataError: It cannot be written.
        """
        self._log.append(answer.model_dump())
        self._answers[answer.key] = answer

    def spent(self, run: str) -> Tally:
        """What a run has paid for, interrupted attempts included."""
        return sum((kept.tally for kept in self._answers.values() if kept.run == run), Tally())


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal for this process alone.

    Args:
        path: The file; it and its folder are made where they are missing.

    Raises:
        DataError: Another process has it open, it cannot be read or written, or a line is broken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(f"{path}.lock", timeout=0).acquire()
    except Timeout:
        raise DataError(
            "another process is asking this teacher",
            path=path,
            hint="wait until it ends, or stop it",
        ) from None
    with held, JsonlLog(path) as log:
        yield Journal(log)


def _answer(record: dict[str, Any], path: Path, line: int) -> KeptAnswer:
    try:
        return KeptAnswer.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"not a journaled answer: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            path=path,
            line=line,
            hint="remove the line: its call will be made again",
        ) from None
