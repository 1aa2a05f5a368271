"""What AICL learned on training sessions, kept so that it is paid for once."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One question about a session's bundles, as it was answered.

    Args:
        question: What stood above the session's items; empty for the first question.
        answer: The bundles that were read, in the layout's form.
    """

    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """The dialogue about one training session.

    Args:
        session_id: The training session.
        turns: Questions and answers about its bundles, in their order.
        intents: Items of each of its last bundles and the intent that was inferred, as shown.
        rules: What its feedback taught, neutralised.
    """

    session_id: str
    turns: tuple[Turn, ...]
    intents: tuple[tuple[str, str], ...] = ()
    rules: tuple[str, ...] = ()


class LessonBook:
    """Lessons by who learned them and the session's id; each is made once, by one thread.

    Safe to share among threads. Copies of a program share it: the key says whose lesson it is.

    Args:
        lessons: Lessons that are known already.
    """

    def __init__(self, lessons: Mapping[Key, Lesson] | None = None) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Key, Future[Lesson]] = {}
        for key, lesson in (lessons or {}).items():
            self._kept[key] = Future()
            self._kept[key].set_result(lesson)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LessonBook":
        """Copies of a program share one book."""
        return self

    def lesson(self, key: Key, make: Callable[[], Lesson]) -> Lesson:
        """The lesson under a key, made now where there is none.

        While one thread makes it, others that ask for it wait.

        Args:
            key: Who learned it, and the session's id.
            make: Makes it; may raise, then nothing is kept and everyone who waits gets the error.
        """
        with self._lock:
            future = self._kept.get(key)
            mine = future is None
            if future is None:
                future = self._kept[key] = Future()
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._lock:
                    del self._kept[key]
                future.set_exception(error)
        return future.result()

    def known(self) -> dict[Key, Lesson]:
        """The lessons that are complete, in the order of their keys."""
        with self._lock:
            ready = {key: future for key, future in self._kept.items() if future.done()}
        return {key: ready[key].result() for key in sorted(ready)}
