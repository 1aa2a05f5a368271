import threading
from typing import Any

import dspy
from dspy.lm15 import Message, Response
from dspy.lm15 import Usage as Reported

from routedk.programs.batch import call_all
from routedk.programs.usage import Usage, metered
from tests.scripted import ScriptedEngine


class TalkativeEngine(ScriptedEngine):
    """Reports 10 tokens a message and 3 for the answer, or nothing."""

    def __init__(self, reported: bool = True) -> None:
        super().__init__(lambda messages: "yes")
        self.reported = reported

    def complete(self, request: Any) -> Any:
        self.requests.append([])
        usage = Reported(input_tokens=10, output_tokens=3) if self.reported else Reported()
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant("yes"),
            finish_reason="stop",
            usage=usage,
        )


def test_tokens_are_those_that_the_lm_reports() -> None:
    lm = dspy.LM("local/talkative", engine=TalkativeEngine(), cache=False)
    with metered() as meter:
        assert meter.usage == Usage()
        lm("one")
        lm("two")
    lm("three")
    assert meter.usage == Usage(calls=2, input_tokens=20, output_tokens=6)


def test_an_answer_without_counts_is_said_to_have_none() -> None:
    lm = dspy.LM("local/silent", engine=TalkativeEngine(reported=False), cache=False)
    with metered() as meter:
        lm("one")
    assert meter.usage == Usage(calls=1, unmetered=1)


def test_calls_of_call_all_are_counted() -> None:
    lm = dspy.LM("local/talkative", engine=TalkativeEngine(), cache=False)
    with metered() as meter:
        call_all(lm, ["one", "two", "three"], num_threads=2)
    assert meter.usage.calls == 3


def test_each_thread_and_each_block_counts_its_own() -> None:
    lm = dspy.LM("local/talkative", engine=TalkativeEngine(), cache=False)
    found: dict[int, Usage] = {}

    def ask(times: int) -> None:
        with metered() as meter:
            for n in range(times):
                lm(str(n))
        found[times] = meter.usage

    with metered() as outer:
        threads = [threading.Thread(target=ask, args=(times,)) for times in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lm("mine")
        with metered() as inner:
            lm("both")
    assert {times: usage.calls for times, usage in found.items()} == {1: 1, 2: 2, 3: 3}
    assert (outer.usage.calls, inner.usage.calls) == (2, 1)


def test_calls_are_counted_where_history_is_off() -> None:
    lm = dspy.LM("local/talkative", engine=TalkativeEngine(), cache=False)
    with dspy.context(disable_history=True, max_history_size=0), metered() as meter:
        lm("one")
    assert meter.usage.calls == 1


def test_usage_adds_up() -> None:
    one = Usage(calls=1, input_tokens=2, output_tokens=3, unmetered=5)
    assert one + one == Usage(calls=2, input_tokens=4, output_tokens=6, unmetered=10)
