"""What AICL learned on training sessions, kept so that it is paid for once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any


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
        voice: Whose lesson it is: a hash of the LM, its instructions and its demos.
        session_id: The training session.
        turns: Questions and answers about its bundles, in their order.
        intents: Items of each of its last bundles and the intent that was inferred, as shown.
        rules: What its feedback taught, neutralised.
    """

    voice: str
    session_id: str
    turns: tuple[Turn, ...]
    intents: tuple[tuple[str, str], ...] = ()
    rules: tuple[str, ...] = ()


class LessonBook:
    """Lessons by their voice and session; each is made once, by one thread.

    Safe to share among threads. Copies of a program share it: the voice says whose lesson it is.

    Args:
        lessons: Lessons that are known already.
    """

    def __init__(self, lessons: Iterable[Lesson] = ()) -> None:
        self.known = {(lesson.voice, lesson.session_id): lesson for lesson in lessons}
        self._locks: dict[tuple[str, str], Lock] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "LessonBook":
        """Copies of a program share one book."""
        return self

    def lesson(self, voice: str, session_id: str, make: Callable[[], Lesson]) -> Lesson:
        """The lesson on a session, made now where there is none.

        While one thread makes it, others that ask for it wait.

        Args:
            voice: Whose lesson.
            session_id: The training session.
            make: Makes it; may raise, then nothing is kept.
        """
        key = voice, session_id
        with self._locks.setdefault(key, Lock()):
            if key not in self.known:
                self.known[key] = make()
            return self.known[key]
