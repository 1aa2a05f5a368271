"""A teacher behind a journal: no answer is paid for twice, and no budget is exceeded."""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any, Self

import dspy
from dspy.lm15 import Message, Request, Response, Usage
from dspy.utils.exceptions import LMError, LMServerError

from routedk.errors import RouteDKError, SettingError
from routedk.programs.journal.budget import Budget, Tally, price_of
from routedk.programs.journal.journal import Journal, KeptAnswer
from routedk.programs.lm_identity import CONNECTION

_LONGEST_WAIT_SECONDS = 120.0


class NoAnswerError(RouteDKError, LMServerError):  # type: ignore[misc]  # DSPy is untyped here
    """A server's response held no answer, e.g. an empty list of choices.

    DSPy retries, as after any error of a server. An answer that is empty because the model ended
    at once has tokens, and is an answer.
    """


class JournalEngine:
    """The engine of a `journaled_lm`: looks a question up in the journal, or asks it.

    Args:
        lm: The language model that is asked.
        journal: Where answers are kept.
        run: Key of the run, whose spending the budget limits.
        budget: What the run may still spend; None for anything.

    Attributes:
        replayed: Questions that were answered from the journal.
    """

    supports_response_schema = False

    def __init__(self, lm: Any, journal: Journal, run: str, budget: Budget | None) -> None:
        # The outer `dspy.LM` retries; each try is a call of its own here.
        self._lm = lm.copy(cache=False, num_retries=0)
        self._sends_headers = isinstance(lm.engine, str) and lm.engine != "lm15"
        self._journal = journal
        self._run = run
        self._budget = budget
        self._lock = Lock()
        self._asking: dict[str, Lock] = {}
        self.replayed = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a program share the journal."""
        return self

    @property
    def supported_params(self) -> set[str]:
        """The options that the language model takes."""
        return set(self._lm.supported_params)

    def complete(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            BudgetError: Asking could exceed the budget.
            LMError: The language model failed.
            DataError: The answer cannot be written to the journal.
        """
        key, size = _question(request, self._lm.kwargs.get("rollout_id"))
        with self._lock:
            asking = self._asking.setdefault(key, Lock())
        # Of threads that have the same question, one asks, and the others find its answer.
        with asking:
            answer = self._journal.get(key)
            if answer is None:
                answer = self._ask(request, key, size)
            else:
                with self._lock:
                    self.replayed += 1
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(answer.text),
            finish_reason=answer.finish_reason,
            usage=Usage(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens),
        )

    def _ask(self, request: Request, key: str, size: int) -> KeptAnswer:
        with self._paying(size) as spend:
            try:
                # DSPy counts and records the outer call.
                with dspy.context(disable_history=True, usage_tracker=None, callbacks=[]):
                    response = self._lm_with(key)(request)
            except LMError as error:
                error.retry_after = _wait(error)
                raise
            answer = self._kept(response, key, size)
            self._journal.add(answer)
            spend.append(answer.tally)
        return answer

    @contextmanager
    def _paying(self, size: int) -> Iterator[list[Tally]]:
        """Reserve the most that a call may cost; what the block adds to the list was spent."""
        spent: list[Tally] = []
        if self._budget is None:
            yield spent
            return
        longest = _answer_limit(self._lm)
        most = Tally(
            calls=1,
            input_tokens=size,
            output_tokens=longest,
            cost=price_of(self._lm, size, longest),
        )
        self._budget.reserve(most)
        try:
            yield spent
        finally:
            self._budget.settle(most, sum(spent, Tally()))

    def _lm_with(self, key: str) -> Any:
        """The language model, sending the question's key where it can send headers.

        A server that knows the header computes a call that a killed run had begun only once.
        """
        if not self._sends_headers:
            return self._lm
        headers = self._lm.kwargs.get("extra_headers") or {}
        return self._lm.copy(extra_headers={**headers, "Idempotency-Key": key})

    def _kept(self, response: Response, key: str, size: int) -> KeptAnswer:
        # Half a surrogate pair cannot be written as UTF-8.
        text = (response.message.text or "").encode(errors="replace").decode()
        # A server that counts nothing reports None or, through LiteLLM, 0: bytes are no fewer.
        read = response.usage.input_tokens or size
        written = response.usage.output_tokens or len(text.encode())
        if not written:
            raise NoAnswerError(f"{self._lm.model}: the server's response held no answer")
        return KeptAnswer(
            key=key,
            run=self._run,
            text=text,
            finish_reason=response.finish_reason,
            input_tokens=read,
            output_tokens=written,
            cost=price_of(self._lm, read, written),
        )


def journaled_lm(
    lm: Any,
    journal: Journal,
    *,
    run: str,
    max_tokens: int | None = None,
    max_cost: float | None = None,
) -> Any:
    """A ``dspy.LM`` that takes the place of another and keeps its answers in a journal.

    A question is the messages and options of a call. A call waits while calls under way could use
    up what is left of the budget, and raises `BudgetError` where it could do so alone: it is taken
    to come to at most a token per byte of its prompt and the model's ``max_tokens``. What a server
    bills for calls that fail is not known here. Its ``engine`` is the `JournalEngine`.

    Args:
        lm: The language model; its connection and retries are used, DSPy's cache is not.
        journal: Where answers are kept.
        run: Key of the run; the budget counts what this run spent, interrupted attempts included.
        max_tokens: Tokens that the run may read and write; None for no limit.
        max_cost: US dollars that it may spend; None for no limit.

    Raises:
        SettingError: There is a budget, and the model has no ``max_tokens`` or no known price.
    """
    budget = None
    if max_tokens is not None or max_cost is not None:
        if not _answer_limit(lm):
            raise SettingError("a budget needs a limit on answers: give the dspy.LM max_tokens")
        if max_cost is not None and price_of(lm, 1, 1) is None:
            raise SettingError(
                f"the price of {lm.model} is not known: limit it by max_tokens instead of max_cost"
            )
        budget = Budget(max_tokens, max_cost, journal.spent(run))
    return lm.copy(
        engine=JournalEngine(lm, journal, run, budget),
        cache=False,
        # The connection belongs to the language model that is asked.
        **dict.fromkeys(CONNECTION & lm.kwargs.keys()),
    )


def _answer_limit(lm: Any) -> int:
    return int(lm.kwargs.get("max_tokens") or lm.kwargs.get("max_completion_tokens") or 0)


def _question(request: Request, rollout_id: int | None) -> tuple[str, int]:
    """The key of what is asked, and its bytes, which its tokens are not more than."""
    asked = asdict(request)
    prompt = json.dumps([asked.pop("system"), asked.pop("messages")], ensure_ascii=False)
    options = json.dumps([asked, rollout_id], sort_keys=True, default=repr)
    raw = prompt.encode(errors="replace")
    return hashlib.sha256(raw + options.encode()).hexdigest(), len(raw)


def _wait(error: LMError) -> float | None:
    """Seconds until the next try: what the server asked for, bounded, and spread over callers."""
    asked = error.retry_after if error.retry_after is not None else _retry_after(error)
    # A server may ask for an hour, and callers turned away together would come back together.
    return None if asked is None else min(asked, _LONGEST_WAIT_SECONDS) * random.uniform(1.0, 1.1)


def _retry_after(error: BaseException) -> float | None:
    """The Retry-After header in seconds; DSPy 3.4 does not find it in LiteLLM's errors."""
    cause: BaseException | None = error
    while cause is not None and not hasattr(cause, "litellm_response_headers"):
        cause = cause.__cause__
    value = (getattr(cause, "litellm_response_headers", None) or {}).get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
