"""The knowledge that a program is compiled with, and the part of it shown for one session."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from heapq import nsmallest
from typing import Any, TypeVar

from routedk.checks import check_least
from routedk.errors import SettingError
from routedk.programs.prompting.layout import Neighbour, PromptContext, render_pattern
from routedk.programs.prompting.naming import labelled_parts
from routedk.similarity.encoders import TitleEncoder, check_encoder, named_encoder
from routedk.similarity.session_vectors import session_vectors
from routedk.similarity.words import WordIndex
from routedk.types import Pattern, Session

TFIDF = "tfidf"

# From a session to one number per training session, at most 1; higher is nearer.
_Similarities = Callable[[Session], Sequence[float]]


class Retriever:
    """Ranks training sessions by similarity to a session.

    With ``tfidf`` sessions are compared by the words of their titles (TF-IDF and cosine), with the
    name of a model by the cosine of their titles' mean embeddings. Sessions without a title or a
    word are similar to nothing. Immutable and thread-safe.

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
            index = WordIndex([*map(titles, self._sessions)])
            self._similarities: _Similarities = lambda one: index.similarities(titles(one))
        else:
            self._similarities = _by_meaning(self._sessions, named_encoder(name))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Retriever":
        """Copies of a program share one index."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled program rebuilds it."""
        return type(self), (self._name, self._sessions)

    def nearest(self, session: Session, k: int) -> list[Session]:
        """The ``k`` nearest training sessions, nearest first.

        A session with the same id as the one asked about is never among them. Ties are
        ordered by session id.

        Args:
            session: The session to find neighbours of.
            k: How many, at least 0; fewer are returned if there are not enough.
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
    """Reject a name that cannot be a retriever's; nothing is loaded or downloaded.

    Args:
        name: As for `Retriever`.

    Raises:
        SettingError: By the name, the folder or the Hugging Face cache, there is none.
    """
    if name == TFIDF:
        return
    try:
        check_encoder(name)
    except SettingError as error:
        raise SettingError(f"retriever {error} (tfidf and minilm are always here)") from None


def titles(session: Session) -> str:
    """A session's titles as one string."""
    return "\n".join(item.title for item in session.items)


def _by_meaning(sessions: Sequence[Session], encoder: TitleEncoder) -> _Similarities:
    vectors = session_vectors(sessions, encoder)

    def similarities(session: Session) -> Sequence[float]:
        [vector] = session_vectors([session], encoder)
        if not vector.any() or not vectors.any():
            return [0.0] * len(sessions)
        # Rounding keeps ties ties, whatever the order of summation.
        scores: list[float] = (vectors @ vector).round(6).tolist()
        return scores

    return similarities


_Shown = TypeVar("_Shown")


@dataclass(frozen=True, kw_only=True)
class CompiledKnowledge:
    """Patterns, rules and neighbours to show; the default shows nothing.

    Args:
        patterns: Patterns in the order shown.
        patterns_shown: How many of them are shown; as ``rules_shown``.
        rules: Rules in the order shown.
        rules_shown: How many of them are shown, at least 1: those nearest to the session by
            TF-IDF, the nearest last; None shows all, in their order.
        k: Number of nearest training sessions shown, at least 0.
        sessions: Training sessions with gold, from which neighbours are taken; one may occur
            several times, once with each of its labels.
        thoughts: Thoughts of training sessions, by session id.
        show_thoughts: Whether neighbours are shown with their thoughts.
        retriever: How neighbours are found: ``tfidf``, ``minilm``, or the name or folder of a
            sentence-transformers model.

    Raises:
        SettingError: A value is not allowed, or a session has no gold.
    """

    patterns: tuple[Pattern, ...] = ()
    patterns_shown: int | None = None
    rules: tuple[str, ...] = ()
    rules_shown: int | None = None
    k: int = 0
    sessions: tuple[Session, ...] = ()
    thoughts: Mapping[str, str] = field(default_factory=dict)
    show_thoughts: bool = False
    retriever: str = "tfidf"
    _retriever: Retriever | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Check the values and index the sessions."""
        check_least(self, k=0, rules_shown=1, patterns_shown=1)
        check_retriever(self.retriever)
        for session in self.sessions:
            if session.bundles is None:
                raise SettingError(f"session {session.id!r} has no gold: it cannot be a neighbour")
        if self.k and not self.sessions:
            raise SettingError(f"k={self.k} without training sessions to choose from")
        if self.k:
            found = _shared_retriever(self.retriever, self.sessions)
            object.__setattr__(self, "_retriever", found)

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledKnowledge":
        """Immutable: copies of a program share it."""
        return self

    @cached_property
    def of_bundles(self) -> "CompiledKnowledge":
        """The knowledge for naming one bundle; its `context` takes that bundle as a session.

        Rules stay; a neighbour is a labelled bundle of another session, shown with its ``why``
        if neighbours are shown with their thoughts.
        """
        parts = labelled_parts(self.sessions) if self.k else []
        if not self.show_thoughts:
            parts = [
                replace(one, bundles=tuple(replace(b, why="") for b in one.bundles or ()))
                for one in parts
            ]
        return CompiledKnowledge(
            rules=self.rules,
            rules_shown=self.rules_shown,
            k=self.k if parts else 0,
            sessions=tuple(parts),
            retriever=self.retriever,
        )

    def context(self, session: Session) -> PromptContext:
        """The knowledge to show for one session; the nearest neighbour is shown last."""
        found = self._retriever.nearest(session, self.k) if self._retriever else []
        thoughts = self.thoughts if self.show_thoughts else {}
        lines = tuple(map(render_pattern, self.patterns))
        return PromptContext(
            patterns=_nearest(self.patterns, lines, session, self.patterns_shown),
            rules=_nearest(self.rules, self.rules, session, self.rules_shown),
            neighbours=tuple(
                Neighbour(session=other, thought=thoughts.get(other.id, ""))
                for other in reversed(found)
            ),
        )


def _nearest(
    shown: tuple[_Shown, ...], lines: tuple[str, ...], session: Session, count: int | None
) -> tuple[_Shown, ...]:
    """Those whose lines are nearest to the session's titles by TF-IDF, the nearest last."""
    if count is None or count >= len(shown):
        return shown
    places = _word_index(lines).ranked(titles(session))[:count]
    return tuple(shown[place] for place in reversed(places))


@lru_cache(maxsize=16)
def _word_index(lines: tuple[str, ...]) -> WordIndex:
    return WordIndex(lines, ngrams=2)


@lru_cache(maxsize=4)
def _shared_retriever(name: str, sessions: tuple[Session, ...]) -> Retriever:
    """The candidates of one compilation share it."""
    return Retriever(name, sessions)


NO_KNOWLEDGE = CompiledKnowledge()
