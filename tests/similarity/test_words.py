import numpy as np
import pytest

from routedk.similarity import TfidfEncoder, WordIndex
from routedk.similarity.words import is_latin, terms
from tests.languages import LANGUAGES

TITLES = ["Canon camera lens", "Nikon camera lens cap", "USB cable", "the of and"]


def test_tfidf_rows_are_unit_or_unknown() -> None:
    encoder = TfidfEncoder(TITLES)
    rows = encoder.encode([*TITLES, "zebra"])
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 0, 0])
    assert rows[0] @ rows[1] > 0.2 > rows[0] @ rows[2]


def test_texts_without_any_word() -> None:
    assert not TfidfEncoder(["the", ""]).encode(["the", "camera"]).any()
    assert not TfidfEncoder([]).encode(["camera"]).any()
    assert TfidfEncoder(TITLES).encode([]).shape[0] == 0
    assert WordIndex(["the", ""]).similarities("camera") == [0.0, 0.0]


def test_an_index_has_the_cosines_of_the_encoder() -> None:
    encoder, index = TfidfEncoder(TITLES), WordIndex(TITLES)
    cosines = encoder.encode(TITLES) @ encoder.encode(["camera cable"])[0]
    assert index.similarities("camera cable") == pytest.approx(cosines, abs=1e-6)


def test_ranking_keeps_the_order_of_equal_texts() -> None:
    index = WordIndex(["usb cable", "camera", "desk", "camera"])
    assert index.ranked("a camera") == [1, 3, 0, 2]
    # A phrase of two words tells texts of the same words apart.
    assert WordIndex(["red pen blue ink", "blue pen"], ngrams=2).ranked("blue pen")[0] == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Canon EOS 200D, 4 K video", ["canon", "eos", "200d", "video"]),
        ("佳能EOS200D相机包", ["佳能", "eos200d", "相机", "机包"]),
        ("茶", ["茶"]),
        ("コーヒー", ["コー", "ーヒ", "ヒー"]),
        ("카메라 가방", ["카메", "메라", "가방"]),
        ("कैमरा बैग", ["कैमरा", "बैग"]),
        ("กล้องดี", ["กล้อ", "ล้อง", "้องด", "องดี"]),
        ("Сумка для камеры", ["сумка", "для", "камеры"]),
        ("📷🎒 ™", ["📷", "🎒"]),
        ("", []),
    ],
)
def test_terms(text: str, found: list[str]) -> None:
    assert terms(text) == found


@pytest.mark.parametrize("language", LANGUAGES)
def test_titles_of_one_kind_are_near_in_any_language(language: str) -> None:
    spoken = LANGUAGES[language]
    texts = [*spoken.camera[1:], *spoken.coffee]
    assert set(WordIndex(texts).ranked(spoken.camera[0])[:2]) == {0, 1}
    assert all(is_latin(text) == spoken.latin for text in (*spoken.intents, *spoken.coffee))


@pytest.mark.parametrize(
    ("text", "latin"),
    [("", True), ("1½ m²", True), ("Café 📷", True), ("Canon 相机配件套装", False)],
)
def test_latin(text: str, latin: bool) -> None:
    assert is_latin(text) is latin
