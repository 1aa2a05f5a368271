"""AICL's dialogues: shared among sessions and threads."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMError

from routedk.errors import SettingError
from routedk.programs.aicl.program import AICL
from routedk.programs.batch import generate_all
from routedk.programs.prompting.layout import Message
from routedk.programs.usage import metered
from routedk.types import Session
from tests.scripted import scripted_lm

from .aicl_script import by_session, step_of


def calls(program: Any, session: Session) -> int:
    """How many calls a program makes for a session."""
    with metered() as meter:
        program(session=session)
    return meter.usage.calls


def titled(make: Callable[..., Session], name: str) -> Session:
    return make(name, ["red kettle", "tea cup", "usb cable"])


def test_a_shared_dialogue_is_paid_once(
    tea: Session, training: list[Session], make: Callable[..., Session]
) -> None:
    other = titled(make, "other")
    lm, _ = scripted_lm(by_session)
    with dspy.context(lm=lm):
        shared = AICL(training)
        assert [calls(shared, s) for s in (tea, other, tea)] == [9, 3, 3]
        assert shared(session=tea).bundles == AICL(training)(session=tea).bundles


def test_lessons_of_another_lm_or_copy_are_not_shared(
    tea: Session, training: list[Session]
) -> None:
    lm, engine = scripted_lm(by_session)
    program = AICL(training)
    with dspy.context(lm=lm):
        assert [calls(program, tea), calls(program.deepcopy(), tea)] == [9, 9]
        assert calls(program, tea) == 3
    with dspy.context(lm=lm.copy(temperature=0.5)):
        assert calls(program, tea) == 9
    with dspy.context(lm=dspy.LM("local/another", engine=engine, cache=False)):
        assert calls(program, tea) == 9


def test_many_threads_wait_for_one_dialogue(
    training: list[Session], make: Callable[..., Session]
) -> None:
    def slow(messages: list[Message]) -> str:
        # The others come while the first is under way.
        time.sleep(0.02)
        return by_session(messages)

    lm, engine = scripted_lm(slow)
    sessions = [titled(make, f"s{n}") for n in range(8)]
    with dspy.context(lm=lm):
        answers = generate_all(AICL(training), sessions, num_threads=8)
    assert len(engine.requests) == 6 + 8 * 3
    assert {answer.bundles[0].item_ids for answer in answers} == {
        tuple(item.id for item in session.items) for session in sessions
    }


def test_a_failing_lm_raises_and_leaves_nothing_behind(
    tea: Session, training: list[Session]
) -> None:
    def fail(messages: list[Message]) -> str:
        if step_of(messages) == "causes":
            raise OSError("no power")
        return by_session(messages)

    lm, engine = scripted_lm(fail)
    program = AICL(training)
    with dspy.context(lm=lm):
        with pytest.raises(LMError, match="no power"):
            program(session=tea)
        engine.script = by_session
        assert calls(program, tea) == 9


def test_async(tea: Session, training: list[Session]) -> None:
    lm, _ = scripted_lm(by_session)

    with dspy.context(lm=lm):
        program = AICL(training)
        assert asyncio.run(program.acall(session=tea)).bundles == program(session=tea).bundles


def test_settings_that_are_not_allowed(training: list[Session]) -> None:
    with pytest.raises(SettingError, match="k=0: AICL needs at least 1 neighbour"):
        AICL(training, k=0)
    with pytest.raises(SettingError, match="retriever 'no/such/folder'"):
        AICL(training, retriever="no/such/folder")
    with pytest.raises(SettingError, match="session 't1' has no gold"):
        AICL([replace(training[0], bundles=None)])
    with pytest.raises(SettingError, match="k=1 without training sessions"):
        AICL([])
