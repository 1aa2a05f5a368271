"""`EncoderGrouping`: bundles by a fine-tuned sentence encoder, with kind and confidence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import BaseModel, Field, TypeAdapter

from routedk.artifacts import content_hash
from routedk.data.policies import is_telling
from routedk.data.validation import checked
from routedk.errors import ArtifactError, DataError
from routedk.files import open_file, read_json, read_tensors
from routedk.forks import ForkLock
from routedk.programs.grouping.candidates import FEATURES
from routedk.programs.grouping.decision import (
    BUNDLE_FEATURES,
    SESSION_FEATURES,
    Choice,
    Decision,
)
from routedk.programs.grouping.kinds import KINDS, WORD_FEATURES, Kinds
from routedk.programs.grouping.known_intents import KnownIntents
from routedk.programs.grouping.linear import Floats, Linear
from routedk.programs.grouping.pair_head import PairHead
from routedk.similarity.encoders import load_sentence_model
from routedk.types import Answer, Bundle, Item, Kind, Session

RECORD = "grouping.json"
HEADS = "heads.safetensors"
LORA = "adapter_model.safetensors"
VERSION = 1
MAX_TOKENS = 40
"""Tokens of a title that are read."""
_BATCH = 32


class _Record(BaseModel):
    """The part of ``grouping.json`` that loading needs."""

    encoder: str
    max_tokens: Annotated[int, Field(ge=1, le=512)]
    kinds: bool
    empty_above: float
    usual: Annotated[float, Field(gt=0)]
    intents: list[str] = []


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


class EncoderGrouping:
    """Groups the items of a session by a sentence encoder that was fine-tuned on labels.

    The bundles of a session depend neither on the order of its items nor on other sessions: its
    items are sorted by title and id, then encoded together.

    Args:
        encoder: A ``SentenceTransformer`` with the fine-tuned weights.
        head: Computes the logits of pairs.
        decision: Chooses the bundles.
        kinds: Names their kinds; None where labels had fewer than two kinds.
        familiarity: Lowers the confidence where titles are unlike those of training.
        intents: Those of the labelled bundles; None where they are not known.
        record: The content of ``grouping.json``: encoder, thresholds, and how it was trained.
        folder: Where it was loaded from, which is what a saved program holds of it.
    """

    def __init__(
        self,
        encoder: Any,
        head: PairHead,
        decision: Decision,
        kinds: Kinds | None,
        familiarity: Familiarity,
        intents: KnownIntents | None,
        record: dict[str, Any],
        folder: Path,
    ) -> None:
        self.encoder = encoder.eval()
        self.head = head.eval()
        self.decision = decision
        self.kinds = kinds
        self.familiarity = familiarity
        self.intents = intents
        self.record = record
        self.folder = folder
        self._lock = ForkLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a program share the model."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled program loads it again."""
        return type(self).load, (self.folder,)

    def fingerprint(self) -> str:
        """A hash of the weights and of all that the bundles depend on."""
        return content_hash(self.record)

    def answer(self, session: Session) -> Answer:
        """Group the items of a session into bundles without intents.

        An item whose title does not tell what it is (`is_telling`) is in no bundle.

        Args:
            session: Any session; its gold is not looked at.
        """
        items = sorted(
            (item for item in session.items if is_telling(item.title)),
            key=lambda item: (item.title, item.id),
        )
        if len(items) < 2:
            # Of one item there is no bundle; what cannot be read may hold some.
            return Answer(session.id, confidence=1.0 if len(session.items) < 2 else 0.0)
        titles_ND, logits_NN = self.read([item.title for item in items])
        choice = self.decision.choose(logits_NN)
        known = self.familiarity(titles_ND)
        bundles = self._bundles(session, items, choice, titles_ND, known)
        return Answer(
            session.id, bundles, confidence=round(choice.confidence * float(known.mean()), 4)
        )

    def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
        """See `Grouping`; None where the mean nearness is below `Familiarity.usual`."""
        with self._lock, torch.inference_mode():
            titles_ND = embed(self.encoder, sorted(titles)).double().numpy()
        if float(self.familiarity.nearness(titles_ND).mean()) < self.familiarity.usual:
            return None
        return self.intents.of(titles_ND) if self.intents else {}

    def read(self, titles: Sequence[str]) -> tuple[Floats, Floats]:
        """Compute the embeddings of a session's titles, and the logits of its pairs.

        Args:
            titles: At least two.

        *Shape:*
            - first result: ``(items, dimensions)``
            - second result: ``(items, items)``, symmetric, zeros on the diagonal
        """
        with self._lock, torch.inference_mode():
            titles_ND = embed(self.encoder, titles)
            pairs = self.head(titles_ND).double().numpy()
        logits = np.zeros((len(titles), len(titles)))
        upper = np.triu_indices(len(titles), k=1)
        logits[upper] = logits.T[upper] = pairs
        return titles_ND.double().numpy(), logits

    def _bundles(
        self,
        session: Session,
        items: Sequence[Item],
        choice: Choice,
        titles_ND: Floats,
        known: Floats,
    ) -> tuple[Bundle, ...]:
        """The chosen bundles; items and bundles are in the order of the session."""
        found = []
        for places, confidence in zip(choice.bundles, choice.bundle_confidence, strict=True):
            inside = sorted(places)
            ids = {items[place].id for place in inside}
            kind: Kind | None = None
            sure: float | None = None
            if self.kinds is not None:
                kind, sure = self.kinds.of([items[k].title for k in inside], titles_ND[inside])
            found.append(
                Bundle(
                    tuple(item.id for item in session.items if item.id in ids),
                    kind=kind,
                    kind_confidence=sure,
                    confidence=round(confidence * float(known[inside].mean()), 4),
                )
            )
        return tuple(sorted(found, key=lambda bundle: session.number(bundle.item_ids[0])))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a grouping that `train` saved.

        Args:
            folder: The folder ``grouping`` of a folder of experts.

        Raises:
            ArtifactError: It is missing, damaged, or of another version.
            SettingError: Its sentence encoder cannot be loaded.
        """
        folder = Path(folder)
        try:
            record: Any = read_json(folder / RECORD)
            if not isinstance(record, dict) or record.get("version") != VERSION:
                raise ArtifactError(f"{folder / RECORD}: not a grouping of version {VERSION}")
            checked(TypeAdapter(_Record), record, path=folder / RECORD, hint="train it again")
            heads = read_tensors(folder / HEADS, "numpy")
            if record.get("weights") != weights_hashes(folder):
                raise DataError(f"missing or damaged: not the weights of {RECORD}", path=folder)
        except DataError as error:
            raise ArtifactError(str(error)) from None
        try:
            if not all(np.isfinite(tensor).all() for tensor in heads.values()):
                raise ValueError(f"{HEADS} has weights that are not finite")
            dimensions = heads["pairs.linear.weight"].shape[-1] - 3
            head = PairHead(dimensions)
            head.load_state_dict(
                {
                    name: torch.from_numpy(heads[f"pairs.{name}"]).reshape(old.shape)
                    for name, old in head.state_dict().items()
                }
            )
            decision = Decision(
                Linear.read(heads, "f1", 1, len(FEATURES)),
                Linear.read(heads, "empty", 1, SESSION_FEATURES),
                Linear.read(heads, "jaccard", 1, BUNDLE_FEATURES),
                record["empty_above"],
            )
            familiarity = Familiarity(heads["titles.centers"], record["usual"])
            intents = None
            if record.get("intents"):
                bundles = heads["intents.bundles"].reshape(-1, dimensions).astype(np.float32)
                intents = KnownIntents(record["intents"], bundles)
            shape = (len(KINDS), dimensions + WORD_FEATURES)
            kinds = Kinds(Linear.read(heads, "kinds", *shape)) if record["kinds"] else None
            encoder = load_sentence_model(record["encoder"])
            encoder.max_seq_length = record["max_tokens"]
            fold_lora(encoder, folder)
            fitted = (encoder, head, decision, kinds, familiarity, intents)
            grouping = cls(*fitted, record, folder.resolve())
            # Dimensions of another encoder show only in use.
            familiarity(grouping.read(["one", "other"])[0])
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"{folder}: missing or damaged: {error}") from error
        return grouping


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
        # Half a surrogate pair, as a cut title may end in, is no text to a tokenizer.
        batch = [titles[k].encode(errors="replace").decode() for k in order[first : first + _BATCH]]
        features = {
            name: value.to(encoder.device) if isinstance(value, torch.Tensor) else value
            for name, value in encoder.preprocess(batch).items()
        }
        parts.append(encoder(features)["sentence_embedding"].float())
    rows = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
    return rows[torch.tensor(order).argsort().to(rows.device)]


def weights_hashes(folder: Path) -> dict[str, str]:
    """A hash of each file of weights in a grouping's folder; a missing one is a DataError."""
    with open_file(folder / LORA) as lora, open_file(folder / HEADS) as heads:
        return {
            name: content_hash(f.read().hex()) for name, f in (("lora", lora), ("heads", heads))
        }


def fold_lora(encoder: Any, folder: Path) -> None:
    """Add a saved LoRA to the weights of an encoder, so that it costs nothing in use.

    Raises:
        ValueError: It is of another encoder, or has weights that are not finite.
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
