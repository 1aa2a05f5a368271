"""The engine of a journaled language model: looks a question up, or asks and writes it down."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Lock
from typing import Any, Self

import dspy
from dspy.clients._http import retry_after_seconds
from dspy.clients.backend_selection import select_backend
from dspy.lm15 import Request, Response, response_to_events
from dspy.utils.exceptions import LMError

from routedk.programs.journal.budget import Amount, Budget, BudgetError, Purse, price
from routedk.programs.journal.journal import AnswerJournal, JournaledAnswer
from routedk.programs.journal.question import Question, next_draw

OnCall = Callable[[JournaledAnswer, bool], None]
_POLL_SECONDS = 0.02
_LONGEST_WAIT = 120.0


class JournalEngine:
    """Serves a journal to DSPy, and asks the language model what is not in it.

    Args:
        lm: The language model.
        journal: Where answers are kept.
        budget: What may be spent.
        on_answer: Told of each answer, on the thread that asked, and whether it was there.
    """

    def __init__(self, lm: Any, journal: AnswerJournal, budget: Budget, on_answer: OnCall) -> None:
        # The outer ``dspy.LM`` makes the retries, each a call of its own here.
        self._inner = lm.copy(cache=False, num_retries=0)
        self._sends_headers = lm.engine == "litellm" or (
            lm.engine == "auto" and not select_backend(lm).native
        )
        self._journal = journal
        self._on_answer = on_answer
        self._bounded = budget.max_tokens is not None or budget.max_cost is not None
        # LiteLLM's table is by name; a custom engine's name is anyone's.
        self._priced = isinstance(lm.engine, str)
        self._purse = Purse(budget, Amount(journal.total.tokens, journal.total.cost))
        self._under_way: dict[str, Future[JournaledAnswer]] = {}
        self._lock = Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a program share the journal."""
        return self

    @property
    def supports_response_schema(self) -> bool:
        """What the language model says of itself."""
        return bool(self._inner.supports_response_schema)

    @property
    def supports_function_calling(self) -> bool:
        """What the language model says of itself."""
        return bool(self._inner.supports_function_calling)

    @property
    def supports_reasoning(self) -> bool:
        """What the language model says of itself."""
        return bool(self._inner.supports_reasoning)

    @property
    def supported_params(self) -> set[str]:
        """What the language model says of itself."""
        return set(self._inner.supported_params)

    def complete(self, request: Request) -> Response:
        """Answer one request."""
        question = Question.of(request)
        while True:
            future, mine = self._join(question.key)
            if mine:
                with self._leading(question.key, future):
                    most = self._most(question)
                    self._purse.take(most)
                    with self._writing(question, most, future) as write:
                        write(self._asked(question.key)(request))
            try:
                return self._serve(question, future.result(), replayed=not mine)
            except _AbandonedError:
                continue

    async def acomplete(self, request: Request) -> Response:
        """The same on an event loop."""
        question = Question.of(request)
        while True:
            future, mine = self._join(question.key)
            if mine:
                with self._leading(question.key, future):
                    most = self._most(question)
                    while not self._purse.try_take(most):
                        await asyncio.sleep(_POLL_SECONDS)
                    with self._writing(question, most, future) as write:
                        write(await self._asked(question.key).acall(request))
            try:
                answer = await asyncio.wrap_future(future)
            except _AbandonedError:
                continue
            return self._serve(question, answer, replayed=not mine)

    def stream(self, request: Request) -> Iterator[Any]:
        """The answer as events, all at once."""
        yield from response_to_events(self.complete(request))

    def _join(self, key: str) -> tuple["Future[JournaledAnswer]", bool]:
        """The question's answer, perhaps still to come, and whether this caller must ask."""
        with self._lock:
            kept, future = self._journal.get(key), self._under_way.get(key)
            if future is not None:
                return future, False
            future = Future()
            # From here on nobody who waits for it can cancel it.
            future.set_running_or_notify_cancel()
            if kept is None:
                self._under_way[key] = future
            else:
                future.set_result(kept)
            return future, kept is None

    @contextmanager
    def _leading(self, key: str, future: "Future[JournaledAnswer]") -> Iterator[None]:
        """Whoever waits for the question learns how asking it ended."""
        try:
            yield
        except BaseException as error:
            if not future.done():
                future.set_exception(error if isinstance(error, Exception) else _AbandonedError())
            raise
        finally:
            with self._lock:
                del self._under_way[key]

    @contextmanager
    def _writing(
        self, question: Question, most: Amount, future: "Future[JournaledAnswer]"
    ) -> Iterator[Callable[[Response], None]]:
        """Ask within the block; what it yields takes the answer, writes it down and settles."""
        began, spent = time.monotonic(), Amount()

        def write(response: Response) -> None:
            nonlocal spent
            seconds = round(time.monotonic() - began, 3)
            answer = question.answered(response, self._price, seconds)
            spent = Amount(answer.input_tokens + answer.output_tokens, answer.cost or 0.0)
            self._journal.append(answer)
            future.set_result(answer)

        try:
            # DSPy counts and records the outer call.
            with dspy.context(
                disable_history=True, usage_tracker=None, callbacks=[], send_stream=None
            ):
                yield write
        except LMError as error:
            error.retry_after = _wait(error)
            raise
        finally:
            self._purse.settle(most, spent)

    def _asked(self, key: str) -> Any:
        """The language model, which sends the question's key where its engine can.

        A server that knows the header answers a call that a killed run had begun only once.
        """
        if not self._sends_headers:
            return self._inner
        headers = self._inner.kwargs.get("extra_headers") or {}
        return self._inner.copy(extra_headers={**headers, "Idempotency-Key": key})

    def _price(self, input_tokens: int, output_tokens: int) -> float | None:
        model = self._inner.model
        return price(model, input_tokens, output_tokens) if self._priced else None

    def _most(self, question: Question) -> Amount:
        """The most that a call can come to."""
        if not self._bounded:
            return Amount()
        limit = question.request.config.max_tokens
        if limit is None:
            raise BudgetError("a budget needs max_tokens on every call of its language model")
        cost = self._price(question.size, limit) or 0.0
        return Amount(question.size + limit, cost)

    def _serve(self, question: Question, answer: JournaledAnswer, replayed: bool) -> Response:
        next_draw()
        self._on_answer(answer, replayed)
        return question.response(answer)


class AsyncJournalEngine:
    """The same engine for ``dspy.LM.acall``."""

    def __init__(self, engine: JournalEngine) -> None:
        self._engine = engine

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a program share the journal."""
        return self

    async def complete(self, request: Request) -> Response:
        """Answer one request."""
        return await self._engine.acomplete(request)

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """The answer as events, all at once."""
        for event in response_to_events(await self.complete(request)):
            yield event


def _wait(error: LMError) -> float | None:
    """Seconds until the next try: what the server asked for, within reason, each caller's own.

    A server may ask for an hour, and callers that it turned away together would come back together.
    """
    asked = error.retry_after if error.retry_after is not None else _retry_after(error)
    return None if asked is None else min(asked, _LONGEST_WAIT) * random.uniform(1.0, 1.1)


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the server asked to wait; DSPy 3.4 does not find them in LiteLLM's errors."""
    cause: BaseException | None = error
    while cause is not None:
        headers = getattr(cause, "litellm_response_headers", None)
        if headers is not None:
            seconds: float | None = retry_after_seconds(headers.get("retry-after"))
            return seconds
        cause = cause.__cause__
    return None


class _AbandonedError(Exception):
    """Whoever was asking was interrupted: ask again."""
