import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.programs.prompting.grounding import grounded, ranked_intents, shared_words
from routedk.similarity import default_encoder
from tests.languages import LANGUAGES


class OneAlike:
    """Takes "photography" to be about cameras, and nothing else about anything."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        about = [0 if "amera" in text or "photo" in text else k + 1 for k, text in enumerate(texts)]
        return np.eye(9, dtype=np.float32)[about]


CAMERAS = ["Nikon camera body, black", "Camera strap for Nikon"]


@pytest.mark.parametrize(
    ("intent", "titles", "found"),
    [
        ("camera accessories", CAMERAS, "camera accessories"),
        ("photography", CAMERAS, "photography"),
        ("coffee brewing", CAMERAS, "camera"),
        ("coffee brewing", ["Rubber duck, yellow", "Bath towel, large", ""], "duck & towel"),
        ("coffee brewing", ["Red wool socks", "Wool socks for men"], "wool socks"),
        ("accessories", ["Red wool sock", "Blue wool sock"], "wool sock"),
        ("", ["Red wool sock", "Blue wool sock"], "wool sock"),
        ("socks", ["Red wool sock", "Gloves"], "socks"),
        ("coffee", ["", "  "], "coffee"),
        ("coffee", ["B07-11", "4711"], "coffee"),
        ("tv", ["LG TV 4K", "HD TV"], "tv"),
        ("socks socks", ["Red wool socks", "Wool socks for men"], "wool socks"),
        # Each part of an intent needs a title.
        ("photography and tea", CAMERAS, "camera"),
        ("photography with strap", CAMERAS, "photography with strap"),
        ("photography & accessories", CAMERAS, "photography & accessories"),
        # For whom things are is not what they are.
        ("women", ["Ava women's loafer", "Ida women's boot"], "loafer & boot"),
        ("", ["Ava women's loafer", "Ida women's loafer"], "women's loafer"),
        ("", ["Ivy Lane Sheer Lace Tank", "Ivy Lane Sheer Skull Tank (M)"], "tank"),
        ("women's loafers", ["Ava women's loafer", "Ida loafer"], "women's loafers"),
        ("women's loafers", ["Ava women's loafer", "Kids' loafer"], "loafers"),
        ("women's loafers", ["Ava loafer", "Ida loafer"], "loafers"),
        ("women's socks", ["Rote Socken für Herren", "Socks for women"], "socks"),
        ("men's and women's boots", ["Ava boot", "Ida boot"], "boots"),
        # What something is like is not what it is.
        ("", ["Coffee Beans 500 gram", "Coffee Beans 1000 gram"], "coffee beans"),
        ("", ["Purple Yarn", "Purple Needles"], "yarn & needles"),
        ("", ["[Sealed] Widget, Pink", "[Sealed] Gadget, Blue"], "widget & gadget"),
        ("", ["Leder Gürtel braun", "Geldbörse, braunes Leder"], "leder"),
        ("", ["Fernseher 40 Zoll", "Fernseher 55 Zoll"], "fernseher"),
        ("", ["Zubehör für Staubsauger", "Ersatzteil für Staubsauger"], "staubsauger"),
        ("", ["Zapatos de piel", "Cinturón de piel"], "piel"),
        # Of equal ones the first: another order of a set would give another answer.
        ("", ["vest mesh lace silk", "silk lace mesh vest"], "vest"),
    ],
)
def test_an_intent_is_about_its_titles(intent: str, titles: list[str], found: str) -> None:
    assert grounded([intent], titles, OneAlike()) == found


def test_the_first_intent_that_titles_support_is_taken() -> None:
    ranked = ["coffee brewing", "photography", "camera"]
    assert grounded(ranked, CAMERAS, OneAlike()) == "photography"


class Angles:
    """Embeds a text as the direction that it names in degrees."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("stated", "known", "titles", "found"),
    [
        ("0", {}, ["0", "10"], "0"),
        ("", {}, ["0"], ""),
        ("90", {"10": 0.7, "40": 0.3}, ["0", "20"], "10"),
        # As near to the titles as the others, and agreeing with most of them.
        ("10", {"10": 0.5, "60": 0.5}, ["0", "20"], "10"),
        ("0", {"80": 0.2, "85": 0.2, "90": 0.6}, ["0", "0"], "0"),
        ("0", {"80": 0.2, "85": 0.2, "90": 0.6}, ["80", ""], "80"),
        ("0", {"80": 1.0}, ["", ""], "0"),
    ],
)
def test_an_intent_agrees_with_titles_and_with_others(
    stated: str, known: dict[str, float], titles: list[str], found: str
) -> None:
    ranked = ranked_intents(stated, known, titles, Angles())
    assert ranked[0] == found
    assert set(ranked) <= {stated, *known}


@pytest.mark.parametrize("language", LANGUAGES)
def test_intents_in_any_language(language: str) -> None:
    """One that shares a word with the titles stays; another is replaced by a word of theirs."""
    spoken, encoder = LANGUAGES[language], default_encoder()
    for titles, intent, other in (
        (spoken.camera, spoken.intents[0], spoken.intents[1]),
        (spoken.coffee, spoken.intents[1], spoken.intents[0]),
    ):
        assert grounded([intent], titles, encoder) == intent
        if not spoken.latin:
            assert grounded([other, intent], titles, encoder) == intent
        own = grounded([""], titles, encoder)
        assert own
        assert all(word in " ".join(titles).lower() for word in own.split(" & "))
    own = grounded([""], spoken.camera, encoder)
    assert any(word in own for word in spoken.shared)


@pytest.mark.parametrize("language", [name for name, one in LANGUAGES.items() if not one.latin])
def test_words_in_common_in_any_language(language: str) -> None:
    spoken = LANGUAGES[language]
    assert shared_words(spoken.intents[0], spoken.camera) > 0
    assert shared_words(spoken.intents[1], spoken.camera) == 0


def test_titles_in_other_languages_without_a_word_in_common() -> None:
    encoder = default_encoder()
    for titles, found in (
        (["Сумка чёрная", "Штатив, 160 см"], "сумка & штатив"),
        (["水杯", "毛巾"], "水杯 & 毛巾"),
        (["小米11手机壳", "佳能200D单反"], "手机壳 & 单反"),
        (["İpek eşarp", "Deri çanta"], "eşarp & çanta"),
        (["रेशमी दुपट्टा", "चमड़े का जूता"], "दुपट्टा & जूता"),
    ):
        assert grounded([""], titles, encoder) == found
