"""The knowledge that a program is compiled with, and the context it makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from routedk.checks import check_least
from routedk.errors import SettingError
from routedk.programs.knowledge.neighbours import Retriever, check_retriever, titles
from routedk.programs.prompting.context import Neighbour, PromptContext
from routedk.programs.prompting.layout import render_pattern
from routedk.programs.prompting.naming import labelled_parts
from routedk.similarity.words import WordIndex
from routedk.types import Pattern, Session

_Shown = TypeVar("_Shown")


@dataclass(frozen=True, kw_only=True)
class CompiledKnowledge:
    """Patterns, rules and neighbours to show; the default shows nothing.

    Args:
        patterns: Patterns in the order shown.
        patterns_shown: How many of them are shown; as ``rules_shown``.
        rules: Rules in the order shown.
        rules_shown: How many of them are shown, at least 1, those nearest to the session in
            words, the nearest last; None shows all, in their order.
        k: Number of nearest training sessions shown, at least 0.
        sessions: Training sessions with gold, the neighbours are among them; one may be there
            once with each of its labels.
        thoughts: Thought of a training session by its id.
        show_thoughts: Neighbours are shown with their thoughts.
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
        """What is shown of it where one bundle is to be named, of which its context asks.

        Rules stay; a neighbour is a labelled bundle of another session, shown with why it is one
        where neighbours are shown with their thoughts.
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
    """Those whose lines share most words with the session's titles, the nearest last."""
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
