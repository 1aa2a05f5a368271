"""Similarity of texts in words: cosines of TF-IDF vectors."""

from collections.abc import Sequence
from typing import Any


class WordIndex:
    """A fixed list of texts, compared with other texts by the words they share.

    Immutable after creation and safe to share among threads. Texts without a single word are
    similar to nothing.

    Args:
        texts: The texts, in the order in which similarities are given.
        ngrams: Most words of a phrase that counts as one word, at least 1.
    """

    def __init__(self, texts: Sequence[str], *, ngrams: int = 1) -> None:
        """Fit the vocabulary on the texts."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            stop_words="english", sublinear_tf=True, ngram_range=(1, ngrams)
        )
        words = vectorizer.build_analyzer()
        self._size = len(texts)
        self._vectorizer: Any = vectorizer if any(words(text) for text in texts) else None
        self._vectors: Any = vectorizer.fit_transform(texts) if self._vectorizer else None

    def similarities(self, text: str) -> list[float]:
        """The cosine of every text of the list with this one, each in [0, 1]."""
        if self._vectorizer is None:
            return [0.0] * self._size
        vector = self._vectorizer.transform([text])
        # Rounding keeps ties ties, whatever the order of a sum.
        scores: list[float] = (self._vectors @ vector.T).toarray().ravel().round(9).tolist()
        return scores

    def ranked(self, text: str) -> list[int]:
        """Places of all texts, the most similar first, equal ones in their order."""
        scores = self.similarities(text)
        return sorted(range(self._size), key=lambda place: (-scores[place], place))
