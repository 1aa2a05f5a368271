"""Finding the training sessions, or the rules, nearest to a session."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from routedk.errors import SettingError
from routedk.programs.similarity import WordIndex
from routedk.types import Session


class Retriever(Protocol):
    """Ranks a fixed set of training sessions by nearness to a session."""

    def nearest(self, session: Session, k: int) -> list[Session]:
        """The ``k`` nearest training sessions, nearest first.

        A session with the id of the one asked about is never among them. Equal nearness is
        ordered by session id.

        Args:
            session: The session to find neighbours of.
            k: How many, at least 0; fewer where there are not as many.
        """
        ...


def _titles(session: Session) -> str:
    return "\n".join(item.title for item in session.items)


class TfidfRetriever:
    """Cosine similarity of TF-IDF vectors of a session's titles.

    Immutable after creation and safe to share among threads and copies of a program.

    Args:
        sessions: Training sessions, ids distinct.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Index the titles; sessions without a single word are near to nothing."""
        self._sessions = sorted(sessions, key=lambda session: session.id)
        if len({session.id for session in self._sessions}) != len(self._sessions):
            raise SettingError("two training sessions have the same id")
        self._index = WordIndex([_titles(session) for session in self._sessions])

    def __deepcopy__(self, memo: dict[int, Any]) -> "TfidfRetriever":
        """Copies of a program share one index."""
        return self

    def nearest(self, session: Session, k: int) -> list[Session]:
        """See `Retriever.nearest`."""
        if k <= 0:
            return []
        found = (self._sessions[place] for place in self._index.ranked(_titles(session)))
        return [other for other in found if other.id != session.id][:k]


class RuleRetriever:
    """Ranks rules by the words and pairs of words that they share with a session's titles.

    Immutable after creation and safe to share among threads and copies of a program.

    Args:
        rules: In the order that decides between equally near ones.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        """Index the rules; a rule without a word of the session is near to nothing."""
        self._rules = tuple(rules)
        self._index = WordIndex(self._rules, ngrams=2)

    def __deepcopy__(self, memo: dict[int, Any]) -> "RuleRetriever":
        """Copies of a program share one index."""
        return self

    def nearest(self, session: Session, k: int) -> list[str]:
        """The ``k`` nearest rules, nearest first."""
        return [self._rules[place] for place in self.places(session, k)]

    def places(self, session: Session, k: int) -> list[int]:
        """Places of the ``k`` nearest rules, nearest first."""
        return self._index.ranked(_titles(session))[: max(0, k)]


RETRIEVERS: Mapping[str, Callable[[Sequence[Session]], Retriever]] = MappingProxyType(
    {"tfidf": TfidfRetriever}
)
