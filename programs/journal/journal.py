"""The journal of a teacher's answers: what is in it was paid for and is never asked again."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from routedk.errors import DataError
from routedk.files import parse_jsonl, read_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JournaledAnswer:
    """One answered call of a language model: one line of a journal.

    Args:
        key: SHA-256 of what was asked, in hexadecimal.
        text: The answer.
        finish_reason: Why it ended, e.g. ``stop`` or ``length``.
        input_tokens: Tokens of the prompt, at least 0.
        output_tokens: Tokens of the answer, at least 0.
        cost: Its price in US dollars; None where the model's price is not known.
        seconds: How long the call took, waits and retries included.
        whole: The response where it is more than its text (tool calls, reasoning, scores), as
            DSPy writes it; None where it is not.
    """

    key: str
    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float
    whole: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What calls came to.

    Args:
        calls: Calls that were answered.
        input_tokens: Tokens of their prompts.
        output_tokens: Tokens of their answers.
        cost: Their price in US dollars, as far as it is known.
        unpriced: Calls among them whose price is not known.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.input_tokens + self.output_tokens

    def plus(self, answer: JournaledAnswer) -> "Tally":
        """This and one more call."""
        return Tally(
            calls=self.calls + 1,
            input_tokens=self.input_tokens + answer.input_tokens,
            output_tokens=self.output_tokens + answer.output_tokens,
            cost=self.cost + (answer.cost or 0.0),
            unpriced=self.unpriced + (answer.cost is None),
        )


class AnswerJournal:
    """An append-only JSONL file of answers, one line each, safe on disk before it is used.

    One process at a time has it open. A line that was being written when the process was killed
    is cut off when the journal is opened again. Threads may share it.

    Args:
        path: The file; it and its folder are made where they are missing.

    Raises:
        DataError: Another process has it open, it cannot be read or written, or a line is
            broken.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = Lock()
        self._answers: dict[str, JournaledAnswer] = {}
        self._total = Tally()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._held = FileLock(f"{self.path}.lock", timeout=0, thread_local=False)
            self._held.acquire()
        except Timeout:
            raise DataError(
                "another process is writing to it", path=path, hint="wait for it or end it"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._end = self._read() if self.path.exists() else 0
            # Unbuffered: one write a line, so that a kill leaves at most one half.
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(self._end)
        except OSError as error:
            self._held.release()
            raise self._unwritable(error) from error
        except DataError:
            self._held.release()
            raise

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many different questions are answered."""
        return len(self._answers)

    @property
    def total(self) -> Tally:
        """All calls it holds, earlier runs' included."""
        return self._total

    def get(self, key: str) -> JournaledAnswer | None:
        """The answer to a question, or None."""
        return self._answers.get(key)

    def append(self, answer: JournaledAnswer) -> None:
        """Write an answer; on return it is on disk.

        Raises:
            DataError: It cannot be written; the file then ends with the answer before it.
        """
        record = {name: value for name, value in asdict(answer).items() if name != "whole" or value}
        # ASCII: an answer may hold half a surrogate pair, which UTF-8 cannot.
        line = json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
        with self._lock:
            try:
                # A raw write may be short.
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
                os.fsync(self._file.fileno())
            except OSError as error:
                self._file.truncate(self._end)
                raise self._unwritable(error) from error
            self._end += len(line)
            self._keep(answer)

    def close(self) -> None:
        """Let another process have it; closing twice is harmless."""
        self._file.close()
        self._held.release()

    def _keep(self, answer: JournaledAnswer) -> None:
        self._answers.setdefault(answer.key, answer)
        self._total = self._total.plus(answer)

    def _read(self) -> int:
        """Take in the whole lines; the length of the file without a half one."""
        whole, _, _ = read_bytes(self.path).rpartition(b"\n")
        for number, record in parse_jsonl(whole.split(b"\n"), path=self.path):
            problem = _problem_of(record)
            if problem:
                raise DataError(
                    f"not a journaled answer: {problem}",
                    path=self.path,
                    line=number,
                    hint="remove the line: its call will be made again",
                )
            self._keep(JournaledAnswer(**record))
        return len(whole) + 1 if whole else 0

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"cannot write: {error.strerror or error}",
            path=self.path,
            hint="what was answered before stays; mend it and run again",
        )


_REQUIRED = {known.name for known in fields(JournaledAnswer)} - {"whole"}


def _problem_of(record: Mapping[str, Any]) -> str:
    """What keeps a record from being an answer; empty where nothing does."""
    if record.keys() - {"whole"} != _REQUIRED:
        return f"its fields are {sorted(record)}"
    for name in ("key", "text", "finish_reason"):
        if not isinstance(record[name], str):
            return f"{name} is {record[name]!r}, not a text"
    for name in ("input_tokens", "output_tokens", "cost", "seconds"):
        value = record[name]
        allowed = int | float if name in ("cost", "seconds") else int
        if value is None and name == "cost":
            continue
        if isinstance(value, bool) or not isinstance(value, allowed) or value < 0:
            return f"{name} is {value!r}, not a number of at least 0"
    if not isinstance(record.get("whole", {}), dict):
        return f"whole is {record['whole']!r}, not a response"
    return ""
