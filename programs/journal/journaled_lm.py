"""A teacher behind a journal: no answer is paid for twice, and no budget is exceeded."""

import hashlib
import json
import os
from dataclasses import asdict
from threading import Lock
from typing import Any, Self

import dspy
from dspy.lm15 import Message, Request, Response, Usage
from dspy.utils.exceptions import LMError, LMServerError

from routedk.errors import RouteDKError, SettingError
from routedk.programs.journal.budget import Tally, price_of
from routedk.programs.journal.journal import Journal, KeptAnswer
from routedk.programs.journal.retry_after import seconds_to_wait
from routedk.programs.lm_identity import CONNECTION


class NoAnswerError(RouteDKError, LMServerError):  # type: ignore[misc]  # DSPy is untyped here
    """A server's response held no answer, e.g. an empty list of choices.

    DSPy retries, as after any server error. An empty answer from a model that stopped at once
    has tokens, and counts as an answer.
    """


class JournalEngine:
    """The engine of a `journaled_lm`: looks a question up in the journal, or asks the model.

    Args:
        lm: The language model that is asked.
        journal: Where answers are kept.

    Attributes:
        asked_lm: The language model that is asked.
    """

    supports_response_schema = False

    def __init__(self, lm: Any, journal: Journal) -> None:
        # The outer `dspy.LM` retries; each attempt is a separate call here.
        self.asked_lm = lm.copy(cache=False, num_retries=0)
        self.supported_params = set(lm.supported_params)
        self._journal = journal
        self._asking: dict[str, Lock] = {}
        self._process = os.getpid()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a program share the journal."""
        return self

    def complete(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            BudgetError: Asking could exceed the budget.
            LMError: The language model failed.
            DataError: The answer cannot be written to the journal.
            SettingError: This process is a fork: only one process at a time may write a journal.
        """
        if os.getpid() != self._process:
            raise SettingError(
                "a teacher with a journal cannot be asked in a forked process: use threads"
            )
        key, size = _question(request, self.asked_lm.kwargs.get("rollout_id"))
        # If several threads have the same question, one asks, and the others find its answer.
        with self._asking.setdefault(key, Lock()):
            kept = self._journal.get(key) or self._ask(request, key, size)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(kept.text),
            finish_reason="stop",
            usage=Usage(input_tokens=kept.input_tokens, output_tokens=kept.output_tokens),
        )

    def _ask(self, request: Request, key: str, size: int) -> KeptAnswer:
        longest = _answer_limit(self.asked_lm)
        most = Tally(1, size, longest, price_of(self.asked_lm, size, longest))
        # DSPy already counts and records the outer call.
        silence = dspy.context(disable_history=True, usage_tracker=None, callbacks=[])
        with self._journal.reserved(most), silence:
            try:
                kept = self._kept(self._lm_for(key)(request), key, size)
            except LMError as error:
                error.retry_after = seconds_to_wait(error)
                raise
            self._journal.add(kept)
        return kept

    def _lm_for(self, key: str) -> Any:
        """The language model, sending the question's key if it can send headers.

        A server that supports the header computes a call that a killed run had begun only once.
        """
        if self.asked_lm.engine not in ("auto", "litellm"):
            return self.asked_lm
        headers = self.asked_lm.kwargs.get("extra_headers") or {}
        return self.asked_lm.copy(extra_headers={**headers, "Idempotency-Key": key})

    def _kept(self, response: Response, key: str, size: int) -> KeptAnswer:
        # A lone surrogate cannot be written as UTF-8.
        text = (response.message.text or "").encode(errors="replace").decode()
        # A server that counts no tokens reports None or, via LiteLLM, 0: bytes are an upper bound.
        read = response.usage.input_tokens or size
        written = response.usage.output_tokens or len(text.encode())
        if not written:
            raise NoAnswerError(f"{self.asked_lm.model}: the server's response held no answer")
        return KeptAnswer(
            key=key,
            run=self._journal.run,
            text=text,
            input_tokens=read,
            output_tokens=written,
            cost=price_of(self.asked_lm, read, written),
        )


def journaled_lm(lm: Any, journal: Journal) -> Any:
    """A ``dspy.LM`` that replaces another and keeps its answers in a journal.

    A question is the messages and options of a call. A call waits while the calls in progress could
    use up the rest of the journal's budget, and raises `BudgetError` if it could exceed it alone:
    its upper bound is one token per byte of its prompt plus the model's ``max_tokens``. What a
    server bills for failed calls is not known.

    Args:
        lm: The language model; its connection and retries are used, DSPy's cache is not.
        journal: Where answers are kept.

    Raises:
        SettingError: There is a budget, but the model has no ``max_tokens`` or no known price.
    """
    if (journal.max_tokens or journal.max_cost) and not _answer_limit(lm):
        raise SettingError("a budget needs a limit on answers: give the dspy.LM max_tokens")
    if journal.max_cost is not None and price_of(lm, 1, 1) is None:
        raise SettingError(
            f"the price of {lm.model} is not known: limit it by max_tokens instead of max_cost"
        )
    return lm.copy(
        engine=JournalEngine(lm, journal),
        cache=False,
        # Connection options belong to the language model that is asked.
        **dict.fromkeys(CONNECTION & lm.kwargs.keys()),
    )


def _answer_limit(lm: Any) -> int:
    return int(lm.kwargs.get("max_tokens") or lm.kwargs.get("max_completion_tokens") or 0)


def _question(request: Request, rollout_id: int | None) -> tuple[str, int]:
    """The key of a question, and its prompt's size in bytes, which bounds its tokens."""
    asked = asdict(request)
    prompt = json.dumps([asked.pop("system"), asked.pop("messages")])
    options = json.dumps([asked, rollout_id], sort_keys=True, default=repr)
    return hashlib.sha256((prompt + options).encode()).hexdigest(), len(prompt)
