"""Finding the training sessions, or the rules, nearest to a session."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest
from types import MappingProxyType
from typing import Any, Protocol

from routedk.errors import SettingError
from routedk.similarity.encoders import TitleEncoder, check_encoder, named_encoder
from routedk.similarity.session_vectors import session_vectors
from routedk.similarity.words import WordIndex
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


class _SimilarityRetriever(ABC):
    """Ranks by one number per training session, at most 1 and higher where nearer.

    Immutable after creation and safe to share among threads and copies of a program.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sorted(sessions, key=lambda session: session.id)
        if len({session.id for session in self._sessions}) != len(self._sessions):
            raise SettingError("two training sessions have the same id")

    def __deepcopy__(self, memo: dict[int, Any]) -> "_SimilarityRetriever":
        """Copies of a program share one index."""
        return self

    @abstractmethod
    def _similarities(self, session: Session) -> Sequence[float]:
        """One number per training session, in the order of their ids."""

    def nearest(self, session: Session, k: int) -> list[Session]:
        """See `Retriever.nearest`."""
        if k <= 0 or not self._sessions:
            return []
        scores = self._similarities(session)
        places = range(len(self._sessions))
        # One more than asked for: the session itself may be among them.
        found = nsmallest(k + 1, places, key=lambda place: (-scores[place], place))
        others = (self._sessions[place] for place in found)
        return [other for other in others if other.id != session.id][:k]


class TfidfRetriever(_SimilarityRetriever):
    """Cosine similarity of TF-IDF vectors of a session's titles: the default, nothing to fetch.

    Sessions without a single word are near to nothing.

    Args:
        sessions: Training sessions, ids distinct.

    Raises:
        SettingError: Two sessions have the same id.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Index the titles."""
        super().__init__(sessions)
        self._index = WordIndex([_titles(session) for session in self._sessions])

    def _similarities(self, session: Session) -> Sequence[float]:
        return self._index.similarities(_titles(session))


class EmbeddingRetriever(_SimilarityRetriever):
    """Cosine similarity of the mean embedding of a session's titles.

    Sessions without a title are near to nothing.

    Args:
        sessions: Training sessions, ids distinct.
        encoder: Encodes titles; by default the packaged MiniLM.

    Raises:
        SettingError: Two sessions have the same id, or the encoder's model cannot be loaded.
    """

    def __init__(self, sessions: Sequence[Session], encoder: TitleEncoder | None = None) -> None:
        """Encode the titles."""
        super().__init__(sessions)
        self._encoder = encoder or named_encoder()
        self._vectors = session_vectors(self._sessions, self._encoder)

    def _similarities(self, session: Session) -> Sequence[float]:
        [vector] = session_vectors([session], self._encoder)
        if not vector.any() or not self._vectors.any():
            return [0.0] * len(self._sessions)
        # Rounding keeps ties ties, whatever the order of a sum.
        scores: list[float] = (self._vectors @ vector).round(6).tolist()
        return scores


RETRIEVERS: Mapping[str, Callable[[Sequence[Session]], Retriever]] = MappingProxyType(
    {"tfidf": TfidfRetriever, "minilm": EmbeddingRetriever}
)


def make_retriever(name: str, sessions: Sequence[Session]) -> Retriever:
    """Index training sessions with the named retriever.

    Args:
        name: One of ``RETRIEVERS``, or the name or folder of a sentence-transformers model.
        sessions: Training sessions, ids distinct.

    Raises:
        SettingError: There is no such retriever or model, or two sessions have the same id.
    """
    check_retriever(name)
    if name in RETRIEVERS:
        return RETRIEVERS[name](sessions)
    return EmbeddingRetriever(sessions, named_encoder(name))


def check_retriever(name: str) -> None:
    """Refuse a name that can be no retriever; nothing is loaded or fetched.

    Args:
        name: As for `make_retriever`.

    Raises:
        SettingError: Where that can be told from the name, the folder and the Hugging Face cache.
    """
    if name == "tfidf":
        return
    try:
        check_encoder(name)
    except SettingError as error:
        here = " and ".join(RETRIEVERS)
        raise SettingError(f"retriever {error} ({here} are always here)") from None


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
