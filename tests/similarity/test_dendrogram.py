import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from routedk.similarity import Dendrogram, TfidfEncoder, session_dendrogram
from routedk.types import Item, Session


def circle(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors at these angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def sets(*words: str) -> list[frozenset[str]]:
    return [frozenset(word) for word in words]


def test_nodes_and_cuts_of_a_known_tree() -> None:
    tree = Dendrogram("abcd", circle(0, 10, 60, 65))
    assert tree.nodes() == sets("cd", "ab", "abcd")
    assert tree.cuts() == [sets("cd"), sets("ab", "cd"), sets("abcd")]
    heights = [merge.height for merge in tree.merges]
    far = [1 - math.cos(math.radians(angle)) for angle in (60, 65, 50, 55)]
    assert heights == pytest.approx(
        [1 - math.cos(math.radians(5)), 1 - math.cos(math.radians(10)), sum(far) / 4], abs=1e-6
    )
    assert tree.cut(0.0) == []
    assert tree.cut(2.0) == sets("abcd")


def test_cut_agrees_with_scipy() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    tree = Dendrogram("abcdefghi", rows)
    reference = linkage(pdist(rows, "cosine"), method="average")
    for threshold in (0.1, 0.3, 0.5, 0.8, 1.0, 1.2):
        labels = fcluster(reference, threshold, criterion="distance")
        groups = [
            frozenset(name for name, label in zip("abcdefghi", labels, strict=True) if label == one)
            for one in dict.fromkeys(labels)
        ]
        assert tree.cut(threshold) == [group for group in groups if len(group) > 1]


def test_merges_of_one_height_are_one_cut() -> None:
    tree = Dendrogram("abcd", circle(0, 0, 90, 90))
    assert tree.cuts() == [sets("ab", "cd"), sets("abcd")]
    assert len(tree.nodes()) == 3


def test_unknown_titles_are_at_distance_one() -> None:
    tree = Dendrogram("abc", np.array([[0, 0], [0, 0], [1, 0]], dtype=np.float32))
    assert [merge.height for merge in tree.merges] == pytest.approx([1.0, 1.0])


def test_few_items() -> None:
    assert Dendrogram("a", circle(0)).nodes() == []
    assert Dendrogram("a", circle(0)).cuts() == []
    assert Dendrogram("ab", circle(0, 20)).cuts() == [sets("ab")]
    with pytest.raises(ValueError, match="2 names for 1 vectors"):
        Dendrogram("ab", circle(0))


def test_the_dendrogram_of_a_session() -> None:
    titles = ["red camera lens", "camera lens cap", "usb cable", "long usb cable"]
    session = Session("1", tuple(Item(str(n), title) for n, title in enumerate(titles)))
    nodes = session_dendrogram(session, TfidfEncoder(titles)).nodes()
    assert set(nodes) == set(sets("01", "23", "0123"))
    assert nodes[-1] == frozenset("0123")
