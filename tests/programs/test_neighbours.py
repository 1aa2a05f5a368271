from collections.abc import Callable

import pytest

from routedk.errors import SettingError
from routedk.programs.neighbours import RETRIEVERS, Retriever, RuleRetriever
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


RULES = ("Keep it small.", "For tea time, bundle kettle with cup.", "For a desk, bundle usb cable.")


def test_rules_nearest_first(make: Callable[..., Session]) -> None:
    retriever = RuleRetriever(RULES)
    assert retriever.nearest(make("s", ["red kettle", "tea cup", "usb"]), 2) == [RULES[1], RULES[2]]
    assert retriever.nearest(make("s", ["desk", "usb cable"]), 1) == [RULES[2]]


def test_rules_without_a_word_in_common_keep_their_order(make: Callable[..., Session]) -> None:
    session = make("s", ["sock"])
    assert RuleRetriever(RULES).nearest(session, 9) == list(RULES)
    assert RuleRetriever(RULES).nearest(session, 0) == []
    assert RuleRetriever(("?", "the")).nearest(session, 1) == ["?"]
    assert RuleRetriever(()).nearest(session, 1) == []
