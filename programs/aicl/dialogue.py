"""Dialogues about one session, and the lessons that a program keeps from them."""

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from routedk.programs.prompting.layout import Fields
from routedk.types import Bundle, Session


@dataclass(kw_only=True)
class Dialogue:
    """Questions and answers about one session; not thread-safe.

    Args:
        session: The session it is about; its gold is ignored.
        rules: Block of rules in the system message; empty for none.
        turns: What is shown before the next question, as demos: turns about other sessions, then
            the readable ones about this one.
        intent_demos: Bundles of other sessions with their inferred intents.
        answer: The prediction of the last readable answer; of the last answer if none was readable.
        intents: Intents inferred so far, by item set.
    """

    session: Session
    rules: str = ""
    turns: list[Fields] = field(default_factory=list)
    intent_demos: Sequence[Fields] = ()
    answer: Any = None
    intents: dict[frozenset[str], str] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        """Whether an answer could be read."""
        return self.answer is not None and self.answer.error is None

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """The last bundles read; one stated without an intent has the inferred one, if any."""
        return tuple(
            bundle if bundle.intent else replace(bundle, intent=self.intents.get(bundle.items, ""))
            for bundle in self.answer.bundles
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """The part of a dialogue about a training session that other prompts show.

    Args:
        turns: Questions and answers about its bundles, as demos.
        intents: Its last bundles and the intents that were inferred, as demos.
        rules: What its feedback taught, neutralized.
    """

    turns: Sequence[Fields]
    intents: Sequence[Fields]
    rules: Sequence[str]


class Lessons:
    """Lessons in memory, each made once; thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Lesson] = {}
        self._locks: dict[Hashable, Lock] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """No lessons: a copy of a program may be changed, and learns its own."""
        return Lessons, ()

    def obtain(self, key: Hashable, make: Callable[[], Lesson]) -> Lesson:
        """The lesson of this key, made now if there is none, while other threads wait for it."""
        # A lock that another thread holds stays locked in a forked process.
        with self._locks.setdefault((os.getpid(), key), Lock()):
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]
