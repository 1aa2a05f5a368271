"""A journaled language model: no question asked twice, any program runs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import (
    AuthError,
    ContextLengthError,
    InvalidRequestError,
    Message,
    Request,
    Response,
    ServerError,
    TextPart,
    ThinkingPart,
    UnsupportedModelError,
    Usage,
)
from dspy.utils.exceptions import AdapterParseError, LMAuthError, LMServerError, LMTransportError

from routedk.errors import AnswerError, DataError
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.journal.budget import Budget, BudgetError
from routedk.programs.journal.journal import AnswerJournal, JournaledAnswer, Tally
from routedk.programs.journal.journaled_lm import is_session_error, journaled_lm
from routedk.programs.journal.question import NoAnswerError
from routedk.programs.usage import Usage as Metered
from routedk.programs.usage import metered
from routedk.types import Session
from tests.scripted import scripted_lm

from .journaled import Gate, Open, echo


def test_a_question_is_asked_once_and_never_again(opened: Open) -> None:
    lm, engine = echo()
    journaled = opened(lm)
    assert journaled.lm("tea?") == ["re: tea?"]
    assert journaled.lm("tea?") == ["re: tea?"]
    assert journaled.lm("mugs?") == ["re: mugs?"]
    assert len(engine.requests) == 2
    again, other = scripted_lm(lambda messages: "different")
    journaled = opened(again)
    assert journaled.lm("tea?") == ["re: tea?"]
    assert other.requests == []


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.5}, {"max_tokens": 9}, {"rollout_id": 1, "temperature": 1.0}],
    ids=str,
)
def test_what_changes_the_answer_is_another_question(opened: Open, options: dict[str, Any]) -> None:
    lm, engine = echo()
    journaled = opened(lm)
    for _ in range(2):
        journaled.lm("tea?")
        journaled.lm("tea?", **options)
        journaled.lm.copy(**options)("tea?")
    assert len(engine.requests) == 2


def test_another_model_is_another_question(opened: Open) -> None:
    lm, engine = echo()
    opened(lm).lm("tea?")
    opened(lm.copy(model="local/other")).lm("tea?")
    assert len(engine.requests) == 2


def test_each_of_n_draws_is_kept(opened: Open) -> None:
    drawn = iter("abcdef")
    lm, _ = scripted_lm(lambda messages: next(drawn))
    lm = lm.copy(temperature=1.0)
    journaled = opened(lm)
    assert journaled.lm("tea?", n=3) == ["a", "b", "c"]
    assert journaled.lm("tea?", n=3) == ["a", "b", "c"]
    # The first draw of one and the first of three are the same question, but n is no option.
    assert opened(lm).lm("tea?", n=4) == ["a", "b", "c", "d"]


def test_spent_tells_this_run_from_the_journal(opened: Open) -> None:
    lm, _ = echo()
    seen: list[tuple[str, bool]] = []
    opened(lm).lm("tea?")
    journaled = opened(lm, on_call=lambda answer, replayed: seen.append((answer.text, replayed)))
    journaled.lm("tea?")
    journaled.lm("mugs?")
    spent = journaled.spent
    assert spent.run == Tally(calls=1, input_tokens=1, output_tokens=1, unpriced=1)
    assert spent.journal == Tally(calls=2, input_tokens=2, output_tokens=2, unpriced=2)
    assert spent.replayed == 1
    assert seen == [("re: tea?", True), ("re: mugs?", False)]


def test_the_same_question_on_many_threads_is_asked_once(opened: Open) -> None:
    gate = Gate()
    journaled = opened(gate.lm())
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(journaled.lm, "tea?") for _ in range(8)]
        assert gate.arrived.acquire(timeout=30)
        gate.go.set()
        assert [one.result() for one in asked] == [["re: tea?"]] * 8
    assert gate.calls == 1
    assert (journaled.spent.run.calls, journaled.spent.replayed) == (1, 7)


def test_whoever_waited_for_a_call_that_fails_is_told_and_may_ask_again(opened: Open) -> None:
    failing = [True]

    def script(messages: list[dict[str, str]]) -> str:
        if failing.pop() if failing else False:
            raise AuthError("no such key")
        return "yes"

    lm, engine = scripted_lm(script)
    journaled = opened(lm)
    with pytest.raises(LMAuthError, match="no such key"):
        journaled.lm("tea?")
    assert journaled.lm("tea?") == ["yes"]
    assert (len(engine.requests), journaled.spent.run.calls) == (2, 1)


def test_many_threads_many_questions_one_line_each(opened: Open, path: Path) -> None:
    lm, engine = echo()
    journaled = opened(lm)
    questions = [f"q{k % 40}" for k in range(200)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(journaled.lm, questions))
    assert answers == [[f"re: {question}"] for question in questions]
    assert len(engine.requests) == len(path.read_text().splitlines()) == 40


def test_async_calls_share_journal_and_budget(opened: Open) -> None:
    lm, engine = echo()
    journaled = opened(lm.copy(max_tokens=1), budget=Budget(max_tokens=1000))

    async def ask() -> list[Any]:
        questions = ["a", "b", "a", "c", "a", "b"]
        return await asyncio.gather(*(journaled.lm.acall(question) for question in questions))

    assert asyncio.run(ask()) == [[f"re: {q}"] for q in ["a", "b", "a", "c", "a", "b"]]
    assert len(engine.requests) == 3
    assert journaled.lm("c") == ["re: c"]
    assert journaled.spent.run.calls == 3


class AsyncGate(Gate):
    """An async engine whose first caller may be cancelled while it waits."""

    async def acomplete(self, request: Request) -> Response:
        self.calls += 1
        while not self.go.is_set():
            await asyncio.sleep(0.01)
        return self.response(request)


class _AsyncSide:
    supports_response_schema = False
    supported_params = Gate.supported_params

    def __init__(self, gate: AsyncGate) -> None:
        self.gate = gate

    async def complete(self, request: Request) -> Response:
        return await self.gate.acomplete(request)


def test_a_cancelled_call_is_asked_by_whoever_waited_for_it(opened: Open) -> None:
    gate = AsyncGate()
    lm = dspy.LM("local/gate", engine=gate, async_engine=_AsyncSide(gate), cache=False)
    journaled = opened(lm)

    async def run() -> Any:
        first = asyncio.create_task(journaled.lm.acall("tea?"))
        while gate.calls == 0:
            await asyncio.sleep(0.01)
        second, third = (asyncio.create_task(journaled.lm.acall("tea?")) for _ in range(2))
        await asyncio.sleep(0.1)
        # One who waits gives up: the others do not notice.
        third.cancel()
        first.cancel()
        gate.go.set()
        return await second

    assert asyncio.run(run()) == ["re: tea?"]
    assert gate.calls == 2
    assert journaled.spent.run.calls == 1


def test_a_program_runs_on_it_unchanged(
    opened: Open, tea: Session, training: list[Session]
) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2 | brewing tea")
    generator = BundleGenerator()
    sessions = [tea, *training]
    for _ in range(2):
        with dspy.context(lm=opened(lm).lm):
            found = generate_all(generator, sessions)
        assert [prediction.bundles[0].intent for prediction in found] == ["brewing tea"] * 4
    assert len(engine.requests) == 4
    # Copies of programs, which optimisers make, ask the same journal.
    generator.set_lm(opened(lm).lm)
    generator.deepcopy()(session=tea)
    assert len(engine.requests) == 4


def test_dspy_counts_and_records_each_call_once(opened: Open) -> None:
    lm, _ = echo()
    journaled = opened(lm)
    with dspy.track_usage() as usage:
        journaled.lm("tea?")
    assert usage.get_total_tokens()["local/scripted"]["total_tokens"] == 2
    with metered() as meter:
        journaled.lm("mugs?")
        journaled.lm("tea?")
    assert meter.usage == Metered(calls=2, input_tokens=2, output_tokens=2)
    assert [entry["outputs"] for entry in journaled.lm.history[:2]] == [["re: tea?"], ["re: mugs?"]]


def test_an_answer_that_is_more_than_text_is_kept_whole(opened: Open) -> None:
    class Thinking(Gate):
        def response(self, request: Request) -> Response:
            parts = [ThinkingPart("a kettle ..."), TextPart("tea")]
            return Response(
                id=None,
                model=request.model,
                message=Message.assistant(parts),
                finish_reason="length",
                usage=Usage(input_tokens=1, output_tokens=2, reasoning_tokens=1),
            )

    gate = Thinking()
    gate.go.set()
    request = Request(model="local/gate", messages=(Message.user("tea?"),))
    first = opened(gate.lm()).lm(request)
    again = opened(gate.lm()).lm(request)
    assert first == again
    assert [part.type for part in again.message.parts] == ["thinking", "text"]
    assert (again.finish_reason, again.usage.total_tokens, gate.calls) == ("length", 3, 1)


@pytest.mark.parametrize("usage", [(None, None), (0, 0)])
def test_tokens_that_a_server_does_not_report_are_counted_from_above(
    opened: Open, usage: tuple[int | None, int | None]
) -> None:
    gate = Gate(usage=usage)
    gate.go.set()
    journaled = opened(gate.lm())
    journaled.lm("tea?")
    spent = journaled.spent.run
    assert spent.input_tokens > len("tea?")
    assert spent.output_tokens == len("re: tea?")


def test_a_draw_that_fails_is_drawn_again_not_passed_over(opened: Open) -> None:
    drawn: list[Any] = ["a", ServerError("busy", retry_after=0.0), "b", "c"]

    def script(messages: list[dict[str, str]]) -> str:
        one = drawn.pop(0)
        if isinstance(one, Exception):
            raise one
        return str(one)

    lm, engine = scripted_lm(script)
    lm = lm.copy(temperature=1.0)
    assert opened(lm).lm("tea?", n=3) == ["a", "b", "c"]
    assert len(engine.requests) == 4
    assert opened(lm).lm("tea?", n=3) == ["a", "b", "c"]
    assert len(engine.requests) == 4


@pytest.mark.parametrize(("asked", "least"), [(3600.0, 120.0), (5.0, 5.0)])
def test_a_wait_that_a_server_asks_for_is_bounded_and_spread(
    opened: Open, asked: float, least: float
) -> None:
    def busy(messages: list[dict[str, str]]) -> str:
        raise ServerError("busy", retry_after=asked)

    lm, _ = scripted_lm(busy)
    waits = set()
    for _ in range(5):
        with pytest.raises(LMServerError) as caught:
            opened(lm.copy(num_retries=0)).lm("tea?")
        waits.add(caught.value.retry_after)
    assert len(waits) > 1
    assert least <= min(waits) <= max(waits) <= 1.1 * least


def test_a_response_without_an_answer_is_none_and_is_not_journaled(
    opened: Open, path: Path
) -> None:
    class Mute(Gate):
        def response(self, request: Request) -> Response:
            return replace(super().response(request), message=Message.assistant(""))

    mute = Mute(usage=(3, 0))
    mute.go.set()
    with pytest.raises(NoAnswerError, match="the server answered without an answer") as caught:
        opened(mute.lm(num_retries=0)).lm("tea?")
    assert is_session_error(caught.value)
    assert path.read_bytes() == b""
    # A model that ends at once has written its end token: that is an answer.
    mute.usage = (3, 1)
    assert opened(mute.lm(num_retries=0)).lm("tea?") == [""]
    assert opened(mute.lm(num_retries=0)).lm("tea?") == [""]
    assert mute.calls == 2


def test_streaming_gives_the_journaled_answer(opened: Open) -> None:
    lm, engine = scripted_lm(lambda messages: "[[ ## answer ## ]]\ntea\n[[ ## completed ## ]]")
    program = dspy.Predict("question -> answer")
    stream = dspy.streamify(program, async_streaming=False)
    with dspy.context(lm=opened(lm).lm, adapter=dspy.ChatAdapter()):
        for _ in range(2):
            *_, last = stream(question="what?")
            assert last.answer == "tea"
    assert len(engine.requests) == 1


def test_nothing_of_the_connection_is_in_the_journal_or_the_key(opened: Open, path: Path) -> None:
    lm, _ = echo()
    keys = []
    for secret in ("sk-first", "sk-second"):
        # The script in place of the wire; `lm.copy` refuses a connection beside an engine.
        journaled = opened(dspy.LM("openai/x", api_key=secret, api_base="http://h", timeout=3))
        journaled.lm.engine._inner = lm.copy(model="openai/x")
        journaled.lm("tea?")
        keys.append(len(journaled.journal))
        assert secret not in str(journaled.lm.kwargs)
        assert "sk-" not in path.read_text()
    assert keys == [1, 1]


@pytest.mark.parametrize(
    ("error", "of_session"),
    [
        (ContextLengthError("too long"), True),
        (InvalidRequestError("what?"), True),
        (AuthError("no"), False),
        (UnsupportedModelError("none such"), False),
        (OSError("the cable"), False),
        (DataError("cannot write: No space left"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_a_call_are_told_apart(opened: Open, error: Exception, of_session: bool) -> None:
    def script(messages: list[dict[str, str]]) -> str:
        raise error

    lm, _ = scripted_lm(script)
    with pytest.raises(dspy.utils.exceptions.LMError) as caught:
        opened(lm).lm("tea?")
    assert is_session_error(caught.value) is of_session


def test_errors_of_a_program_are_told_apart() -> None:
    signature = dspy.Signature("question -> answer")
    assert is_session_error(AdapterParseError("ChatAdapter", signature, "?"))
    assert is_session_error(AnswerError("no bundle"))
    assert not is_session_error(BudgetError("used up"))
    assert not is_session_error(LMTransportError("refused"))
    assert not is_session_error(ValueError("a bug"))


def test_a_journal_that_is_open_elsewhere_is_refused(path: Path) -> None:
    lm, _ = echo()
    with AnswerJournal(path), pytest.raises(DataError, match="another process is writing to it"):
        journaled_lm(lm, path)


def test_on_call_is_given_the_answer(opened: Open) -> None:
    seen: list[JournaledAnswer] = []
    lm, _ = echo()
    opened(lm, on_call=lambda answer, replayed: seen.append(answer)).lm("tea?")
    (answer,) = seen
    assert (answer.text, answer.finish_reason, answer.cost) == ("re: tea?", "stop", None)


def test_a_journal_may_be_closed_on_another_thread(path: Path) -> None:
    journal = AnswerJournal(path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(journal.close).result()
    AnswerJournal(path).close()
