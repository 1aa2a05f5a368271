import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from routedk.similarity import Dendrogram, TfidfEncoder, session_dendrogram
from routedk.types import Item, Session


def cosine(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(1 - rows @ rows.T, 0, 2)


def circle(*degrees: float) -> NDArray[np.float64]:
    """Cosine distances of unit vectors at these angles."""
    angles = np.radians(degrees)
    return cosine(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def sets(*words: str) -> list[frozenset[str]]:
    return [frozenset(word) for word in words]


def test_cuts_of_a_known_tree() -> None:
    tree = Dendrogram("abcd", circle(0, 10, 60, 65))
    assert [members for members, _ in tree.merges] == sets("cd", "ab", "abcd")
    near, middle, top = (height for _, height in tree.merges)
    far = [1 - math.cos(math.radians(angle)) for angle in (60, 65, 50, 55)]
    assert [near, middle, top] == pytest.approx(
        [1 - math.cos(math.radians(5)), 1 - math.cos(math.radians(10)), sum(far) / 4]
    )
    assert tree.cut(0.0) == []
    assert tree.cut(near) == sets("cd")
    assert tree.cut(middle) == sets("ab", "cd")
    assert tree.cut(2.0) == sets("abcd")


def test_cut_agrees_with_scipy() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    tree = Dendrogram("abcdefghi", cosine(rows))
    reference = linkage(pdist(rows, "cosine"), method="average")
    for threshold in (0.1, 0.3, 0.5, 0.8, 1.0, 1.2):
        labels = fcluster(reference, threshold, criterion="distance")
        groups = [
            frozenset(name for name, label in zip("abcdefghi", labels, strict=True) if label == one)
            for one in dict.fromkeys(labels)
        ]
        assert tree.cut(threshold) == [group for group in groups if len(group) > 1]


def test_few_items() -> None:
    assert Dendrogram("a", circle(0)).cut(2.0) == []
    assert Dendrogram("ab", circle(0, 20)).cut(2.0) == sets("ab")


def test_the_dendrogram_of_a_session() -> None:
    titles = ["red camera lens", "camera lens cap", "usb cable", "long usb cable"]
    session = Session("1", tuple(Item(str(n), title) for n, title in enumerate(titles)))
    tree = session_dendrogram(session, TfidfEncoder(titles))
    assert tree.cut(0.9) == sets("01", "23")
    assert tree.cut(1.0) == sets("0123")
    unknown = session_dendrogram(session, TfidfEncoder([]))
    assert [height for _, height in unknown.merges] == [1.0] * 3
