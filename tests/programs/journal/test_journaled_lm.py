"""A journaled language model: no question is asked twice, and no budget is exceeded."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import AuthError, Request
from dspy.utils.exceptions import LMAuthError, LMError

from routedk.errors import SettingError
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.journal.budget import BudgetError
from routedk.programs.journal.journaled_lm import JournalEngine, NoAnswerError
from routedk.programs.usage import Usage, metered
from routedk.types import Session
from tests.forked import in_fork
from tests.scripted import scripted_lm

from .engines import Gate, Open, echo


def test_a_question_is_asked_once_and_never_again(opened: Open) -> None:
    lm, engine = echo()
    journaled = opened(lm)
    assert journaled("tea?") == ["re: tea?"]
    assert journaled("tea?") == ["re: tea?"]
    assert journaled("mugs?") == ["re: mugs?"]
    assert len(engine.requests) == 2
    again, other = scripted_lm(lambda messages: "different")
    assert opened(again, run="another")("tea?") == ["re: tea?"]
    assert other.requests == []


def test_a_forked_process_is_refused_and_does_not_wait(opened: Open) -> None:
    gate = Gate()
    journaled = opened(gate.lm())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(journaled, "tea?")
        assert gate.arrived.acquire(timeout=30)
        with pytest.raises(LMError, match="cannot be asked in a forked process"):
            in_fork(lambda: journaled("tea?"))
        gate.go.set()
        assert asked.result() == ["re: tea?"]


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.5}, {"max_tokens": 9}, {"rollout_id": 1, "temperature": 1.0}],
    ids=str,
)
def test_what_changes_the_answer_is_another_question(opened: Open, options: dict[str, Any]) -> None:
    lm, engine = echo()
    for _ in range(2):
        opened(lm)("tea?")
        opened(lm.copy(**options))("tea?")
    assert len(engine.requests) == 2


def test_the_same_question_on_many_threads_is_asked_once(opened: Open) -> None:
    gate = Gate()
    journaled = opened(gate.lm())
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(journaled, "tea?") for _ in range(8)]
        assert gate.arrived.acquire(timeout=30)
        gate.go.set()
        assert [one.result() for one in asked] == [["re: tea?"]] * 8
    assert gate.calls == 1


def test_a_program_runs_on_it_unchanged(
    opened: Open, tea: Session, training: list[Session]
) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2 | brewing tea")
    generator = BundleGenerator()
    sessions = [tea, *training]
    for _ in range(2):
        with dspy.context(lm=opened(lm)):
            found = generate_all(generator, sessions)
        assert [prediction.bundles[0].intent for prediction in found] == ["brewing tea"] * 4
    assert len(engine.requests) == 4
    # Copies of programs ask the same journal.
    generator.set_lm(opened(lm))
    generator.deepcopy()(session=tea)
    assert len(engine.requests) == 4


def test_dspy_counts_each_call_once_and_replays_alike(opened: Open) -> None:
    lm, _ = echo()
    for _ in range(2):
        journaled = opened(lm)
        with metered() as meter:
            journaled("mugs?")
            journaled("tea?")
        assert meter.usage == Usage(calls=2, input_tokens=2, output_tokens=2)
        assert len(journaled.history) == 2


@pytest.mark.parametrize("usage", [(None, None), (0, 0)])
def test_tokens_that_a_server_does_not_report_are_counted_from_above(
    opened: Open, usage: tuple[int | None, int | None]
) -> None:
    gate = Gate(usage=usage)
    gate.go.set()
    with metered() as meter:
        opened(gate.lm())("tea?")
    assert meter.usage.input_tokens > len("tea?")
    assert meter.usage.output_tokens == len("re: tea?")


def test_an_answer_with_half_a_surrogate_pair_is_kept_as_it_is_given(opened: Open) -> None:
    lm, _ = scripted_lm(lambda messages: "tea \ud83d")
    assert opened(lm)("tea?") == opened(lm)("tea?") == ["tea ?"]


def test_a_response_without_an_answer_is_none_and_is_not_journaled(
    opened: Open, path: Path
) -> None:
    class Mute(Gate):
        def text(self, request: Request) -> str:
            return ""

    mute = Mute(usage=(3, 0))
    mute.go.set()
    with pytest.raises(NoAnswerError, match="the server's response held no answer"):
        opened(mute.lm(num_retries=0))("tea?")
    assert path.read_bytes() == b""
    # A model that ends at once has written its end token: that is an answer.
    mute.usage = (3, 1)
    assert opened(mute.lm())("tea?") == opened(mute.lm())("tea?") == [""]
    assert mute.calls == 2


def test_nothing_of_the_connection_is_in_the_journal_or_the_key(opened: Open, path: Path) -> None:
    lm, engine = echo()
    for secret in ("sk-first", "sk-second"):
        # The script in place of the wire; `lm.copy` refuses a connection together with an engine.
        journaled = opened(dspy.LM("openai/x", api_key=secret, api_base="http://h", timeout=3))
        journaled.engine.asked_lm = lm.copy(model="openai/x")
        journaled("tea?")
        assert secret not in str(journaled.kwargs)
        assert "sk-" not in path.read_text()
    assert len(engine.requests) == 1


def size_of(lm: Any, question: str) -> int:
    """What a budget holds for a question: its bytes and ``max_tokens``."""
    from dspy.lm15 import Message

    from routedk.programs.journal.journaled_lm import _question

    request = Request(model=lm.model, messages=(Message.user(question),))
    return _question(request, None)[1] + int(lm.kwargs["max_tokens"])


def test_a_budget_holds_what_calls_under_way_may_come_to(opened: Open) -> None:
    gate = Gate()
    lm = gate.lm(max_tokens=50)
    journaled = opened(lm, max_tokens=2 * size_of(lm, "tea 0?") + 10)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(journaled, f"tea {k}?") for k in range(3)]
        assert gate.arrived.acquire(timeout=30)
        assert gate.arrived.acquire(timeout=30)
        # The third waits: the two under way might leave no room for it.
        assert not gate.arrived.acquire(timeout=0.2)
        gate.go.set()
        assert sorted(one.result()[0] for one in asked) == [f"re: tea {k}?" for k in range(3)]


def test_a_used_up_budget_stops_before_the_call(opened: Open, path: Path) -> None:
    gate = Gate(usage=(100, 50))
    gate.go.set()
    lm = gate.lm(max_tokens=50)
    size = size_of(lm, "tea 0?")
    journaled = opened(lm, max_tokens=size + 149)
    assert journaled("tea 0?") == ["re: tea 0?"]
    with pytest.raises(BudgetError, match=rf"150 tokens are spent.* take {size} tokens"):
        journaled("tea 1?")
    assert gate.calls == 1
    # What is in the journal costs nothing.
    assert journaled("tea 0?") == ["re: tea 0?"]
    # The next attempt of the run counts what the earlier one spent; another run does not.
    with pytest.raises(BudgetError):
        opened(lm, max_tokens=size + 149)("tea 1?")
    assert opened(lm, max_tokens=size + 150)("tea 1?") == ["re: tea 1?"]
    assert opened(lm, run="another", max_tokens=size)("tea 2?") == ["re: tea 2?"]
    assert len(path.read_text().splitlines()) == 3


def test_a_failed_call_may_be_made_again_and_returns_its_share_of_the_budget(
    opened: Open, path: Path
) -> None:
    failing = [True]

    def script(messages: list[dict[str, str]]) -> str:
        if failing:
            failing.clear()
            raise AuthError("no such key")
        return "yes"

    lm, engine = scripted_lm(script)
    lm = lm.copy(max_tokens=5)
    journaled = opened(lm, max_tokens=size_of(lm, "tea?") + 1)
    with pytest.raises(LMAuthError, match="no such key"):
        journaled("tea?")
    assert journaled("tea?") == ["yes"]
    assert (len(engine.requests), len(path.read_text().splitlines())) == (2, 1)


def test_a_budget_needs_max_tokens_and_a_price(opened: Open) -> None:
    lm, _ = echo()
    with pytest.raises(SettingError, match="a budget needs a limit on answers: give the"):
        opened(lm, max_tokens=100)
    for unpriced in (lm.copy(max_tokens=5), dspy.LM("openai/nameless", max_tokens=5)):
        with pytest.raises(SettingError, match=f"the price of {unpriced.model} is not known: lim"):
            opened(unpriced, max_cost=1.0)


def test_cost_is_counted_and_limited(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, _ = echo()
    # 0.15 and 0.60 dollars a million tokens.
    priced = dspy.LM("openai/gpt-4o-mini", max_tokens=1000, engine="litellm")
    monkeypatch.setattr(JournalEngine, "_lm_for", lambda self, key: lm.copy(model=priced.model))
    opened(priced, max_cost=1.0)("tea?")
    # A call may come to 1000 tokens of answer, 0.0006 dollars, and its prompt.
    with pytest.raises(BudgetError, match=r"max_cost=0.0006 leaves no room"):
        opened(priced, max_cost=0.0006)("mugs?")
    opened(priced, max_cost=0.0007)("mugs?")
