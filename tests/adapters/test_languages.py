"""The general bundler that the package carries, on carts in languages that it never saw."""

from collections.abc import Iterator
from importlib.resources import files

import dspy
import pytest

from routedk import BundleGenerator
from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.student import Student
from routedk.programs.grouping.encoder import EncoderGrouping
from routedk.programs.grouping.titles import foreign
from routedk.types import Item, Session
from tests.languages import LANGUAGES


@pytest.fixture(scope="module")
def lm(loaded: Student) -> Iterator[dspy.LM]:
    """The packaged grouping; the student is not asked about titles that are not familiar."""
    grouping = EncoderGrouping.load(str(files("routedk") / "bundler" / "grouping"))
    engine = StudentEngine(loaded, form="bundle-intent", grouping=grouping)
    yield engine_lm(engine)
    engine.close()


def cart(language: str) -> Session:
    spoken = LANGUAGES[language]
    titles = (*spoken.camera, *spoken.coffee)
    return Session(language, tuple(Item(str(k), title) for k, title in enumerate(titles)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_bundles_share_words_are_named_by_them_and_are_unsure(lm: dspy.LM, language: str) -> None:
    session = cart(language)
    with dspy.context(lm=lm):
        found = BundleGenerator()(session=session)
    assert found.confidence < 0.3
    assert found.bundles or language in ("chinese", "greek", "thai")
    for bundle in found.bundles:
        assert bundle.items <= {"0", "1", "2"} or bundle.items <= {"3", "4"}
        titles = [session.item(item).title.lower() for item in bundle.item_ids]
        assert bundle.intent
        assert sum(bundle.intent in title for title in titles) > 1
        assert bundle.confidence < 0.3


def test_english_is_read(lm: dspy.LM) -> None:
    """Also where titles are of a domain that the bundler never saw."""
    grouping = lm.engine.grouping
    for titles in (["Coffee maker", "Coffee filters 100"], ["Canon EOS 200D", "Nikon strap"]):
        assert not foreign(grouping.encoder, "minilm", titles).any()
        assert not foreign(grouping.encoder, "some/model", ["相机包"]).any()
    assert foreign(grouping.encoder, "minilm", ["Camera bag", "相机包"]).tolist() == [False, True]


@pytest.mark.student
def test_the_whole_bundler_in_chinese() -> None:
    found = BundleGenerator()(session=cart("chinese"))
    assert {bundle.intent for bundle in found.bundles} <= {"相机", "咖啡"}
    assert found.confidence < 0.3
