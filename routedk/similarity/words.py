"""Words in any script, and the similarity of texts in them.

Texts are compared by sublinear TF-IDF vectors of unit length, without English stop words.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

_SYLLABIC = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Hangul}"
_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
DENSE = rf"[{_SYLLABIC}\p{{Emoji_Presentation}}]"
"""A pattern for characters that say as much as several letters: a single one can be a word."""
RUN = regex.compile(rf"(?P<pairs>[{_SYLLABIC}]+)|(?P<fours>[{_UNSPACED}]+)")
"""Words with no spaces between them. Korean has spaces, but not everywhere."""
WORD = regex.compile(
    rf"(?V1)[{_SYLLABIC}]+|[{_UNSPACED}]+|\p{{Emoji_Presentation}}"
    rf"|[[^\W\d_]--[{_SYLLABIC}{_UNSPACED}]]{{2,}}"
)
"""A word without digits; its letters include the vowel signs of Hindi, Thai and others."""
# Arabic and Hebrew write articles and prepositions as part of a word.
_JOINED = rf"{_UNSPACED}\p{{Arabic}}\p{{Hebrew}}"
_TERM = regex.compile(
    rf"(?V1)(?P<pairs>[{_SYLLABIC}]+)|(?P<fours>[{_JOINED}]+)|\p{{Emoji_Presentation}}"
    rf"|[\w--[{_SYLLABIC}{_JOINED}]]{{2,}}"
)
_SIZES = {"pairs": 2, "fours": 4}


def terms(text: str) -> list[str]:
    """The terms by which texts are compared: words and numbers, in lower case.

    Where there are no spaces between words, they are character bigrams; in Thai, Arabic and the
    like, character 4-grams.
    """
    found: list[str] = []
    for run in _TERM.finditer(text.lower()):
        size = _SIZES.get(run.lastgroup, len(run[0]))
        found += (run[0][k : k + size] for k in range(max(1, len(run[0]) - size + 1)))
    return found


def may_name(word: str) -> bool:
    """Whether a word may name a thing; two letters are more often a unit."""
    return len(word) > 2 or bool(regex.search(DENSE, word))


def is_latin(text: str) -> bool:
    """Whether at least half of the letters and emoji of a text are Latin letters."""
    letters = regex.findall(r"[\p{L}\p{Emoji_Presentation}]", text)
    return 2 * len(regex.findall(r"\p{Latin}", text)) >= len(letters)


def hashed_terms(texts: Sequence[str], dimensions: int) -> NDArray[np.float64]:
    """Hashed vectors of the terms of texts, each of unit length, or all 0 without terms.

    *Shape:*
        - result: ``(texts, dimensions)``
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    rows: NDArray[np.float64] = (
        HashingVectorizer(n_features=dimensions, analyzer=terms).transform(texts).toarray()
    )
    return rows


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
        ngrams: Maximum number of words in a phrase that counts as one term, at least 1.
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
        # Rounding preserves ties, whatever the order of summation.
        scores: list[float] = (self._vectors @ vector.T).toarray().ravel().round(9).tolist()
        return scores

    def ranked(self, text: str) -> list[int]:
        """Indices of all texts, the most similar first, ties in their original order."""
        scores = self.similarities(text)
        return sorted(range(self._size), key=lambda place: (-scores[place], place))


def _fitted(texts: Sequence[str], ngrams: int = 1) -> Any:
    """A vectorizer fitted on texts; None if they have no words, which scikit-learn rejects."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        tokenizer=terms,
        token_pattern=None,
        stop_words="english",
        sublinear_tf=True,
        ngram_range=(1, ngrams),
    )
    if not any(map(vectorizer.build_analyzer(), texts)):
        return None
    return vectorizer.fit(texts)
