"""The knowledge that a program is compiled with, and the context it makes of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, get_args

from routedk.errors import SettingError
from routedk.programs.knowledge.context import Neighbour, NeighbourStyle, PromptContext
from routedk.programs.knowledge.neighbours import (
    Retriever,
    RuleRetriever,
    check_retriever,
    make_retriever,
)
from routedk.programs.prompting.layout import render_pattern
from routedk.types import Pattern, Session


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
        sessions: Training sessions with gold, the neighbours are among them; ids distinct.
        thoughts: Thought of a training session by its id.
        show_thoughts: Neighbours are shown with their thoughts.
        style: How neighbours are shown, ``demos`` or ``blocks``.
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
    style: NeighbourStyle = "demos"
    retriever: str = "tfidf"
    _index: Retriever | None = field(init=False, repr=False, compare=False, default=None)
    _patterns: RuleRetriever | None = field(init=False, repr=False, compare=False, default=None)
    _rules: RuleRetriever | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Check the values and build the index."""
        if self.k < 0:
            raise SettingError(f"k={self.k}: it must be at least 0")
        for kind, shown in (("patterns", self.patterns_shown), ("rules", self.rules_shown)):
            if shown is not None and shown < 1:
                raise SettingError(
                    f"{kind}_shown={shown}: it must be at least 1, or None for all {kind}"
                )
        if self.style not in get_args(NeighbourStyle):
            allowed = ", ".join(get_args(NeighbourStyle))
            raise SettingError(f"neighbour style {self.style!r}: allowed are {allowed}")
        check_retriever(self.retriever)
        for session in self.sessions:
            if session.bundles is None:
                raise SettingError(f"session {session.id!r} has no gold: it cannot be a neighbour")
        if self.k and not self.sessions:
            raise SettingError(f"k={self.k} without training sessions to choose from")
        if self.k:
            object.__setattr__(self, "_index", _index(self.retriever, tuple(self.sessions)))
        if self.patterns_shown is not None and len(self.patterns) > self.patterns_shown:
            lines = tuple(map(render_pattern, self.patterns))
            object.__setattr__(self, "_patterns", RuleRetriever(lines))
        if self.rules_shown is not None and len(self.rules) > self.rules_shown:
            object.__setattr__(self, "_rules", RuleRetriever(self.rules))

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledKnowledge":
        """Immutable: copies of a program share it."""
        return self

    def without(self, session_ids: Iterable[str]) -> "CompiledKnowledge":
        """The same without these sessions as neighbours and without their thoughts.

        For the sessions that are to be answered: none of them may be shown with its gold. Where
        no neighbour is left, none is shown. Patterns and rules stay; they are of many sessions.

        Args:
            session_ids: Ids to leave out; unknown ones are passed over.
        """
        gone = frozenset(session_ids)
        left = tuple(session for session in self.sessions if session.id not in gone)
        thoughts = {name: text for name, text in self.thoughts.items() if name not in gone}
        if len(left) == len(self.sessions) and len(thoughts) == len(self.thoughts):
            return self
        return replace(self, k=self.k if left else 0, sessions=left, thoughts=thoughts)

    def context(self, session: Session) -> PromptContext:
        """What to show for one session; the nearest neighbour is shown last."""
        found = self._index.nearest(session, self.k) if self._index else []
        neighbours = tuple(
            Neighbour(
                session=other,
                thought=self.thoughts.get(other.id, "") if self.show_thoughts else "",
            )
            for other in reversed(found)
        )
        patterns, rules = self.patterns, self.rules
        if self._patterns is not None and self.patterns_shown is not None:
            places = self._patterns.places(session, self.patterns_shown)
            patterns = tuple(patterns[place] for place in reversed(places))
        if self._rules is not None and self.rules_shown is not None:
            rules = tuple(reversed(self._rules.nearest(session, self.rules_shown)))
        return PromptContext(
            patterns=patterns, rules=rules, neighbours=neighbours, style=self.style
        )


@lru_cache(maxsize=2)
def _index(name: str, sessions: tuple[Session, ...]) -> Retriever:
    """The index of a retriever; candidates of one compilation share it."""
    return make_retriever(name, sessions)


NO_KNOWLEDGE = CompiledKnowledge()
