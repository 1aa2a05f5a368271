"""Titles as a fine-tuned encoder sees them: its LoRA, their embeddings and their familiarity."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from routedk.artifacts import content_hash
from routedk.files import open_file, read_json, read_tensors
from routedk.programs.grouping.linear import Floats
from routedk.similarity.encoders import DEFAULT
from routedk.similarity.words import WORD, is_latin

HEADS = "heads.safetensors"
LORA = "adapter_model.safetensors"
MAX_TOKENS = 40
"""Maximum number of tokens read of a title."""
_BATCH = 32
_NEAREST = 10
# Temperature of the softmax that turns cosines into weights.
_TEMPERATURE = 0.1


class Familiarity:
    """How near titles are to the training titles.

    Args:
        centers: Centers of the training titles' embeddings, each of length 1.
        usual: Similarity to the nearest center that 95% of the training titles reach.

    *Shape:*
        - centers: ``(centers, dimensions)``
    """

    def __init__(self, centers: Floats, usual: float) -> None:
        self.centers = centers
        self.usual = usual

    def nearness(self, titles_ND: Floats) -> Floats:
        """The similarity of each title to the nearest center. *Shape:* (titles,)."""
        near: Floats = (titles_ND @ self.centers.T).max(axis=1)
        return near

    def __call__(self, titles_ND: Floats) -> Floats:
        """The familiarity of each title, in [0, 1]: 1 where it is as near as usual."""
        shares: Floats = np.clip(self.nearness(titles_ND) / self.usual, 0.0, 1.0)
        return shares


def embed(encoder: Any, titles: Sequence[str]) -> torch.Tensor:
    """Embed titles as vectors of length 1, with gradients where they are enabled.

    Args:
        encoder: A ``SentenceTransformer``.
        titles: At least one; titles of similar length share a batch, to save padding.

    *Shape:*
        - result: ``(titles, dimensions)``
    """
    order = sorted(range(len(titles)), key=lambda place: (len(titles[place]), titles[place]))
    parts = []
    for first in range(0, len(order), _BATCH):
        # A tokenizer rejects a lone surrogate, which a truncated title may end in.
        batch = [titles[k].encode(errors="replace").decode() for k in order[first : first + _BATCH]]
        features = {
            name: value.to(encoder.device) if isinstance(value, torch.Tensor) else value
            for name, value in encoder.preprocess(batch).items()
        }
        parts.append(encoder(features)["sentence_embedding"].float())
    rows = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
    return rows[torch.tensor(order).argsort().to(rows.device)]


def foreign(encoder: Any, name: str | None, titles: Sequence[str]) -> NDArray[np.bool_]:
    """Which of a session's titles are in a script or language that MiniLM was not trained on.

    In 99.5% of the English sessions of BundleRec and the demo, at least .41 of the words are in its
    vocabulary; of German words .27 are, of Czech, Polish and Turkish .1, of other scripts 0.

    Args:
        encoder: A ``SentenceTransformer``.
        name: Its name; for any but MiniLM nothing is known, and no title counts as foreign.
        titles: At least one.

    *Shape:*
        - result: ``(titles,)``
    """
    if name != DEFAULT:
        return np.zeros(len(titles), dtype=bool)
    words = [word for title in titles for word in WORD.findall(title.lower()) if len(word) > 2]
    ids = encoder.tokenizer.convert_tokens_to_ids(words)
    english = 3 * ids.count(encoder.tokenizer.unk_token_id) <= 2 * len(ids)
    return np.array([not (english and is_latin(title)) for title in titles])


def weights_hashes(folder: Path) -> dict[str, str]:
    """A hash of each weights file in a grouping's folder; a missing one raises DataError."""
    with open_file(folder / LORA) as lora, open_file(folder / HEADS) as heads:
        return {
            name: content_hash(f.read().hex()) for name, f in (("lora", lora), ("heads", heads))
        }


def fold_lora(encoder: Any, folder: Path) -> None:
    """Merge a saved LoRA into the weights of an encoder, so that it costs nothing at inference.

    Raises:
        ValueError: It belongs to another encoder, or has weights that are not finite.
    """
    config: Any = read_json(folder / "adapter_config.json")
    tensors = read_tensors(folder / LORA, "pt")
    scale = config["lora_alpha"] / config["r"]
    with torch.no_grad():
        for key in filter(lambda name: name.endswith(".lora_A.weight"), tensors):
            name = key.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            weight = encoder.transformers_model.get_submodule(name).weight
            change = tensors[key.replace("lora_A", "lora_B")].float() @ tensors[key].float() * scale
            if change.shape != weight.shape or not bool(change.isfinite().all()):
                raise ValueError(f"{name}: a weight of another encoder, or one that is not finite")
            weight += change


class KnownIntents:
    """The intents of labelled bundles, looked up by the similarity of the bundles' titles.

    Args:
        intents: One per labelled bundle.
        bundles: Mean embeddings of their titles, each of length 1.

    *Shape:*
        - bundles: ``(intents, dimensions)``

    Raises:
        ValueError: The numbers of intents and rows differ.
    """

    def __init__(self, intents: Sequence[str], bundles: Floats) -> None:
        if len(intents) != len(bundles):
            raise ValueError(f"{len(intents)} intents and {len(bundles)} bundles")
        self.intents = list(intents)
        self.bundles = bundles

    def of(self, titles_ND: Floats) -> Mapping[str, float]:
        """The intents of the nearest labelled bundles, with weights that sum to 1."""
        alike = self.bundles @ mean_title(titles_ND)
        nearest = np.argsort(-alike, kind="stable")[:_NEAREST]
        weights = np.exp((alike[nearest] - alike.max(initial=0.0)) / _TEMPERATURE)
        found: dict[str, float] = {}
        for place, weight in zip(nearest, weights / weights.sum(), strict=True):
            intent = self.intents[place]
            found[intent] = found.get(intent, 0.0) + float(weight)
        return found


def mean_title(titles_ND: Floats) -> Floats:
    """The mean of titles' embeddings, scaled to length 1."""
    mean = titles_ND.mean(axis=0)
    unit: Floats = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return unit
