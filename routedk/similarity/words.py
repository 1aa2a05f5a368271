"""Similarity of texts in words: TF-IDF without English stop words, sublinear, unit length."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TfidfEncoder:
    """Texts as TF-IDF vectors; a `TitleEncoder`.

    Args:
        texts: The texts that the vocabulary and the inverse document frequencies come from.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._vectorizer = _fitted(list(texts))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts; see `TitleEncoder.encode`."""
        if self._vectorizer is None or not texts:
            return np.zeros((len(texts), 1), dtype=np.float32)
        dense: NDArray[np.float64] = self._vectorizer.transform(texts).toarray()
        return dense.astype(np.float32)


class WordIndex:
    """A fixed list of texts, compared with other texts by the words they share.

    Immutable after creation and safe to share among threads. Texts without a single word are
    similar to nothing.

    Args:
        texts: The texts, in the order in which similarities are given.
        ngrams: Most words of a phrase that counts as one word, at least 1.
    """

    def __init__(self, texts: Sequence[str], *, ngrams: int = 1) -> None:
        self._size = len(texts)
        self._vectorizer = _fitted(texts, ngrams)
        self._vectors: Any = self._vectorizer.transform(texts) if self._vectorizer else None

    def similarities(self, text: str) -> list[float]:
        """The cosine of every text of the list with this one, each in [0, 1]."""
        if self._vectorizer is None:
            return [0.0] * self._size
        vector = self._vectorizer.transform([text])
        # Rounding keeps ties ties, whatever the order of a sum.
        scores: list[float] = (self._vectors @ vector.T).toarray().ravel().round(9).tolist()
        return scores

    def ranked(self, text: str) -> list[int]:
        """Indices of all texts, the most similar first, equal ones in their order."""
        scores = self.similarities(text)
        return sorted(range(self._size), key=lambda place: (-scores[place], place))


def _fitted(texts: Sequence[str], ngrams: int = 1) -> Any:
    """A vectorizer of these texts; None where they have no word, which scikit-learn refuses."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, ngram_range=(1, ngrams))
    if not any(map(vectorizer.build_analyzer(), texts)):
        return None
    return vectorizer.fit(texts)
