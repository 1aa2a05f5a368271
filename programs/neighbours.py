"""Finding the training sessions nearest to a session."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from routedk.errors import SettingError
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
        """Fit the vocabulary; sessions without a single word are near to nothing."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._sessions = sorted(sessions, key=lambda session: session.id)
        if len({session.id for session in self._sessions}) != len(self._sessions):
            raise SettingError("two training sessions have the same id")
        vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True)
        texts = [_titles(session) for session in self._sessions]
        words = vectorizer.build_analyzer()
        self._vectorizer: Any = vectorizer if any(words(text) for text in texts) else None
        self._vectors: Any = vectorizer.fit_transform(texts) if self._vectorizer else None

    def __deepcopy__(self, memo: dict[int, Any]) -> "TfidfRetriever":
        """Copies of a program share one index."""
        return self

    def nearest(self, session: Session, k: int) -> list[Session]:
        """See `Retriever.nearest`."""
        if k <= 0:
            return []
        if self._vectorizer is None:
            scores = [0.0] * len(self._sessions)
        else:
            vector = self._vectorizer.transform([_titles(session)])
            # Rounding keeps ties ties, whatever the order of a sum.
            scores = (self._vectors @ vector.T).toarray().ravel().round(9).tolist()
        order = sorted(range(len(self._sessions)), key=lambda place: (-scores[place], place))
        found = (self._sessions[place] for place in order)
        return [other for other in found if other.id != session.id][:k]


RETRIEVERS: Mapping[str, Callable[[Sequence[Session]], Retriever]] = MappingProxyType(
    {"tfidf": TfidfRetriever}
)
