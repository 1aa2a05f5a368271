"""Finding the training sessions nearest to a session."""

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import nsmallest
from typing import Any

from routedk.errors import SettingError
from routedk.similarity.encoders import TitleEncoder, check_encoder, named_encoder
from routedk.similarity.session_vectors import session_vectors
from routedk.similarity.words import WordIndex
from routedk.types import Session

TFIDF = "tfidf"

# From a session to one number per training session, at most 1 and higher where nearer.
_Similarities = Callable[[Session], Sequence[float]]


class Retriever:
    """Ranks training sessions by nearness to a session.

    With ``tfidf`` sessions are near by the words of their titles, by TF-IDF and cosine; with the
    name of a model by the cosine of their titles' mean embeddings. Sessions without a title, or
    without a word, are near to nothing. Immutable and safe to share among threads.

    Args:
        name: ``tfidf``, ``minilm``, or the name or folder of a sentence-transformers model.
        sessions: Training sessions, or parts of them: several may have the same id.

    Raises:
        SettingError: There is no such model, or it cannot be loaded.
    """

    def __init__(self, name: str, sessions: Sequence[Session]) -> None:
        """Index the titles."""
        check_retriever(name)
        self._name = name
        self._sessions = sorted(sessions, key=lambda session: session.id)
        self._times = Counter(session.id for session in self._sessions)
        if name == TFIDF:
            self._similarities = _by_words(self._sessions)
        else:
            self._similarities = _by_meaning(self._sessions, named_encoder(name))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Retriever":
        """Copies of a program share one index."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled program makes it again."""
        return type(self), (self._name, self._sessions)

    def nearest(self, session: Session, k: int) -> list[Session]:
        """The ``k`` nearest training sessions, nearest first.

        A session with the id of the one asked about is never among them. Equal nearness is
        ordered by session id.

        Args:
            session: The session to find neighbours of.
            k: How many, at least 0; fewer where there are not as many.
        """
        if k <= 0 or not self._sessions:
            return []
        scores = self._similarities(session)
        places = range(len(self._sessions))
        # More than asked for: the session itself may be among them.
        most = k + self._times[session.id]
        found = nsmallest(most, places, key=lambda place: (-scores[place], place))
        others = (self._sessions[place] for place in found)
        return [other for other in others if other.id != session.id][:k]


def check_retriever(name: str) -> None:
    """Refuse a name that cannot be a retriever's; nothing is loaded or fetched.

    Args:
        name: As for `Retriever`.

    Raises:
        SettingError: The name, the folder or the Hugging Face cache shows that there is none.
    """
    if name == TFIDF:
        return
    try:
        check_encoder(name)
    except SettingError as error:
        raise SettingError(f"retriever {error} (tfidf and minilm are always here)") from None


def titles(session: Session) -> str:
    """A session's titles as one text."""
    return "\n".join(item.title for item in session.items)


def _by_words(sessions: Sequence[Session]) -> _Similarities:
    index = WordIndex([titles(session) for session in sessions])
    return lambda session: index.similarities(titles(session))


def _by_meaning(sessions: Sequence[Session], encoder: TitleEncoder) -> _Similarities:
    vectors = session_vectors(sessions, encoder)

    def similarities(session: Session) -> Sequence[float]:
        [vector] = session_vectors([session], encoder)
        if not vector.any() or not vectors.any():
            return [0.0] * len(sessions)
        # Rounding keeps ties ties, whatever the order of a sum.
        scores: list[float] = (vectors @ vector).round(6).tolist()
        return scores

    return similarities
