import numpy as np
import pytest

from routedk.similarity import TfidfEncoder, WordIndex

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
