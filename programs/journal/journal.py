"""The journal of a teacher: its answered calls, one per line, and what a run may still spend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from routedk.data.validation import checked
from routedk.files import JsonlLog, held
from routedk.programs.journal.budget import BudgetError, Tally


class KeptAnswer(BaseModel):
    """One answered call.

    Args:
        key: SHA-256 of the question, in hexadecimal.
        run: Key of the run that paid for it.
        text: The answer.
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
        cost: Its price in US dollars; None if the model's price is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: str
    run: str
    text: str
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    cost: float | None = Field(ge=0, le=1e12)


_KEPT = TypeAdapter(KeptAnswer)


class Journal:
    """Keeps the answers of one teacher and the budget of one run; thread-safe.

    Created by `open_journal`.

    Args:
        log: Its file.
        run: Key of the run that asks.
        max_tokens: Tokens that the run may read and write; None for no limit.
        max_cost: US dollars that it may spend; None for no limit. A limit needs known costs.

    Attributes:
        run: Key of the run.
        spent: What the run has paid for, interrupted attempts included.

    Raises:
        DataError: A line is not an answer.
    """

    def __init__(
        self, log: JsonlLog, run: str, max_tokens: int | None = None, max_cost: float | None = None
    ) -> None:
        self.run = run
        self.max_tokens = max_tokens
        self.max_cost = max_cost
        self.spent = Tally()
        self._log = log
        self._answers: dict[str, KeptAnswer] = {}
        self._reserved: list[Tally] = []
        self._changed = Condition()
        hint = "remove the line: its call will be made again"
        for line, record in log.records:
            self._count(checked(_KEPT, record, path=log.path, line=line, hint=hint))

    def get(self, key: str) -> KeptAnswer | None:
        """The answer to a question; None if it has not been answered yet."""
        return self._answers.get(key)

    def add(self, answer: KeptAnswer) -> None:
        """Keep an answer; it is on disk when this returns.

        Raises:
            DataError: It cannot be written.
        """
        self._log.append(answer.model_dump())
        with self._changed:
            self._count(answer)

    @contextmanager
    def reserved(self, most: Tally) -> Iterator[None]:
        """Reserve the most that a call may cost, while it is made and its answer added.

        Waits until the calls in progress leave room for it.

        Raises:
            BudgetError: There is no room for it even with no other call in progress.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(most))
            self._reserved.append(most)
        try:
            yield
        finally:
            with self._changed:
                self._reserved.remove(most)
                self._changed.notify_all()

    def _count(self, answer: KeptAnswer) -> None:
        self._answers[answer.key] = answer
        if answer.run == self.run:
            self.spent += Tally(1, answer.input_tokens, answer.output_tokens, answer.cost)

    def _has_room(self, most: Tally) -> bool:
        if limit := self._exceeded(self.spent + most):
            raise BudgetError(
                f"the budget {limit}={getattr(self, limit)} leaves no room: {self.spent} are "
                f"spent, and the next call may take {most} (raise {limit} and run again: no "
                "answer is paid for twice)"
            )
        return not self._exceeded(sum(self._reserved, self.spent + most))

    def _exceeded(self, total: Tally) -> str:
        """Name of the limit that a total exceeds; empty if it exceeds none."""
        if self.max_tokens is not None and total.tokens > self.max_tokens:
            return "max_tokens"
        if self.max_cost is not None and (total.cost or 0.0) > self.max_cost:
            return "max_cost"
        return ""


@contextmanager
def open_journal(
    path: Path, run: str, max_tokens: int | None = None, max_cost: float | None = None
) -> Iterator[Journal]:
    """Open a journal exclusively for this process.

    Args:
        path: The file; it and its folder are created if they are missing.
        run: As for `Journal`.
        max_tokens: As for `Journal`.
        max_cost: As for `Journal`.

    Raises:
        DataError: Another process has it open, it cannot be read or written, or a line is broken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    busy = ("another process is asking this teacher", "wait until it ends, or stop it")
    with held(f"{path}.lock", path, *busy), JsonlLog(path) as log:
        yield Journal(log, run, max_tokens, max_cost)
