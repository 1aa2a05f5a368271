"""A pair model learns which kinds of titles are bundled, and says so symmetrically."""

import numpy as np
import pytest

from routedk.errors import SettingError
from routedk.similarity.pairs import PairModel, fit_pairs, pair_features
from routedk.types import Bundle, Item, Session
from tests.eval.test_baselines import session

# Cameras go with bags, though no word says so; lamps go with nothing.
KINDS = {"camera": (1.0, 0.0, 0.0), "bag": (0.0, 1.0, 0.0), "lamp": (0.0, 0.0, 1.0)}


class KindEncoder:
    """Encodes a title as its kind, rotated slightly by its number."""

    def encode(self, texts: list[str]) -> np.ndarray:
        rows = []
        for text in texts:
            kind, number = text.split()
            row = np.array(KINDS[kind]) + 0.02 * np.roll(KINDS[kind], 1) * int(number)
            rows.append(row / np.linalg.norm(row))
        return np.array(rows, dtype=np.float32)


def shop(number: int) -> Session:
    """A camera, a bag and a lamp in any order; camera and bag are a bundle."""
    kinds = list(np.roll(["camera", "bag", "lamp"], number))
    items = tuple(Item(kind, f"{kind} {number % 4}") for kind in kinds)
    return Session(f"s{number}", items, (Bundle(("camera", "bag")),))


def test_features_of_a_pair_by_hand() -> None:
    titles = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=np.float32)
    expected = [
        # Products, cosine, less the mean, less each best (the lower first), nearer, between, n.
        [0.6, 0.0, 0.6, 0.6 - 1.4 / 3, 0.0, 0.6 - 0.8, 1, 0, 3],
        [0.0, 0.0, 0.0, -1.4 / 3, -0.6, -0.8, 2, 1, 3],
        [0.0, 0.8, 0.8, 0.8 - 1.4 / 3, 0.0, 0.0, 0, 0, 3],
    ]
    assert pair_features(titles) == pytest.approx(np.array(expected), abs=1e-6)


def test_what_cosines_cannot_tell_is_learnt() -> None:
    encoder = KindEncoder()
    model = fit_pairs([shop(number) for number in range(60)], encoder)
    assert model is not None
    found = model.probabilities(encoder.encode(["bag 7", "lamp 5", "camera 6"]))
    assert found == pytest.approx(found.T)
    assert np.diag(found).tolist() == [1.0] * 3
    assert found[0, 2] > max(found[0, 1], found[1, 2]) + 0.02


def test_the_model_is_scikit_learns_on_standardised_features() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    encoder, sessions = KindEncoder(), [shop(number) for number in range(9)]
    model = fit_pairs(sessions, encoder)
    assert model is not None
    titles = [encoder.encode([item.title for item in one.items]) for one in sessions]
    rows = np.concatenate([pair_features(mine) for mine in titles])
    bundled = [
        {a.id, b.id} == {"camera", "bag"}
        for one in sessions
        for k, a in enumerate(one.items)
        for b in one.items[k + 1 :]
    ]
    scaled = StandardScaler().fit_transform(rows)
    theirs = LogisticRegression(C=3e-4, max_iter=1000).fit(scaled, bundled).predict_proba(scaled)
    mine = np.concatenate([model.probabilities(t)[np.triu_indices(3, k=1)] for t in titles])
    assert mine == pytest.approx(theirs[:, 1])


@pytest.mark.parametrize("gold", [(), ("ab",)])
def test_nothing_to_tell_apart(gold: tuple[str, ...]) -> None:
    assert fit_pairs([session(["bag 1", "lamp 1"], *gold)], KindEncoder()) is None
    assert fit_pairs([], KindEncoder()) is None


def test_sessions_of_one_item_have_no_pair() -> None:
    assert PairModel((0.0,) * 10, 0.0).probabilities(np.ones((1, 3), np.float32)).tolist() == [[1]]


def test_another_encoders_width() -> None:
    with pytest.raises(SettingError, match="another encoder's embeddings"):
        PairModel((0.0,) * 8, 0.0).probabilities(np.eye(3, dtype=np.float32))
