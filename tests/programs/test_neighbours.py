from collections.abc import Callable

import pytest

from routedk.errors import SettingError
from routedk.programs.neighbours import RETRIEVERS, Retriever
from routedk.types import Session


class RetrieverConformance:
    """What every retriever keeps; inherit and name one."""

    name: str

    def retriever(self, sessions: list[Session]) -> Retriever:
        return RETRIEVERS[self.name](sessions)

    def ids(self, sessions: list[Session], session: Session, k: int) -> list[str]:
        return [other.id for other in self.retriever(sessions).nearest(session, k)]

    def test_nearest_first(self, tea: Session, training: list[Session]) -> None:
        assert self.ids(training, tea, 3)[-1] == "t3"

    def test_never_itself(self, training: list[Session]) -> None:
        for session in training:
            assert session.id not in self.ids(training, session, 10)

    def test_no_more_than_there_are(self, tea: Session, training: list[Session]) -> None:
        assert len(self.ids(training, tea, 99)) == 3
        assert self.ids(training, tea, 0) == []

    def test_ties_are_broken_by_id(self, make: Callable[..., Session], tea: Session) -> None:
        twins = [make(name, ["green kettle"], []) for name in ("b", "c", "a")]
        assert self.ids(twins, tea, 3) == ["a", "b", "c"]
        assert self.ids(twins[::-1], tea, 3) == ["a", "b", "c"]

    def test_sessions_without_words(self, make: Callable[..., Session], tea: Session) -> None:
        assert self.ids([make("x", ["", "?"], [])], tea, 1) == ["x"]

    def test_same_id_twice(self, training: list[Session]) -> None:
        with pytest.raises(SettingError, match="the same id"):
            self.retriever([training[0], training[0]])


class TestTfidf(RetrieverConformance):
    name = "tfidf"
