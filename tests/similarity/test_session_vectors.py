from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.similarity.session_vectors import session_vectors
from routedk.types import Item, Session

TABLE = {"east": (1.0, 0.0), "north": (0.0, 1.0), "west": (-1.0, 0.0), "unknown": (0.0, 0.0)}


class Table:
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [TABLE[text] for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), 2)


def session(name: str, *titles: str) -> Session:
    return Session(name, tuple(Item(str(n), title) for n, title in enumerate(titles)))


@pytest.mark.parametrize(
    ("titles", "vector"),
    [
        (("east",), (1, 0)),
        (("east", "north"), (0.5**0.5, 0.5**0.5)),
        (("east", "east", "north"), (2 / 5**0.5, 1 / 5**0.5)),
        (("east", "", "  "), (1, 0)),
        (("east", "unknown"), (1, 0)),
        (("", ""), (0, 0)),
        (("unknown",), (0, 0)),
        (("east", "west"), (0, 0)),
    ],
)
def test_by_hand(titles: tuple[str, ...], vector: tuple[float, float]) -> None:
    sessions = [session("before", "north"), session("s", *titles), session("after", "west")]
    rows = session_vectors(sessions, Table())
    assert rows.dtype == np.float32
    assert rows == pytest.approx(np.array([(0, 1), vector, (-1, 0)]))


def test_none() -> None:
    assert session_vectors([], Table()).shape == (0, 2)
    assert session_vectors([session("s", "")], Table()).tolist() == [[0, 0]]
