"""`EncoderGrouping`: bundles from a fine-tuned sentence encoder, with kind and confidence."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import BaseModel, Field, TypeAdapter

from routedk.artifacts import content_hash
from routedk.data.policies import is_telling
from routedk.data.validation import checked
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json, read_tensors
from routedk.forks import ForkLock
from routedk.programs.grouping.candidates import FEATURES
from routedk.programs.grouping.constraints import Constraints, told
from routedk.programs.grouping.decision import (
    BUNDLE_FEATURES,
    SESSION_FEATURES,
    Choice,
    Decision,
)
from routedk.programs.grouping.kinds import KINDS, WORD_FEATURES, Kinds
from routedk.programs.grouping.linear import Floats, Linear
from routedk.programs.grouping.pair_head import PairHead
from routedk.programs.grouping.titles import (
    HEADS,
    Familiarity,
    KnownIntents,
    embed,
    fold_lora,
    foreign,
    weights_hashes,
)
from routedk.rules import BundleRules
from routedk.similarity.encoders import load_sentence_model
from routedk.similarity.words import hashed_terms
from routedk.types import Answer, Bundle, Item, Kind, Session

RECORD = "grouping.json"
VERSION = 1


class _Record(BaseModel):
    """The part of ``grouping.json`` that loading needs."""

    encoder: str
    max_tokens: Annotated[int, Field(ge=1, le=512)]
    kinds: bool
    empty_above: float
    usual: Annotated[float, Field(gt=0)]
    intents: list[str] = []


class EncoderGrouping:
    """Groups the items of a session with a sentence encoder that was fine-tuned on labels.

    The bundles of a session depend neither on the order of its items nor on other sessions: its
    items are sorted by title and id, then encoded together.

    Args:
        encoder: A ``SentenceTransformer`` with the fine-tuned weights.
        head: Computes the logits of pairs.
        decision: Chooses the bundles.
        kinds: Names their kinds; None if the labels had fewer than two kinds.
        familiarity: Lowers the confidence if titles are unlike the training titles.
        intents: Intents of the labelled bundles; None if they are not known.
        record: The content of ``grouping.json``: encoder, thresholds, and how it was trained.
        folder: Where it was loaded from; a saved program refers to it by this folder.
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
        """A pickled program reloads it from its folder."""
        return type(self).load, (self.folder,)

    def fingerprint(self) -> str:
        """A hash of the weights and of everything else that the bundles depend on."""
        return content_hash(self.record)

    def answer(self, session: Session, rules: BundleRules | None = None) -> Answer:
        """Group the items of a session into bundles without intents; see `Grouping`.

        An item whose title does not say what it is (see `is_telling`) is in no bundle. Bundles are
        chosen again under rules only if the choice without rules violates one.
        """
        if rules is not None and rules.kinds and self.kinds is None:
            raise SettingError(
                f"kinds={', '.join(rules.kinds)}: this grouping names no kinds, because its labels "
                "had fewer than two: leave the rule out"
            )
        items = sorted(
            (item for item in session.items if is_telling(item.title)),
            key=lambda item: (item.title, item.id),
        )
        if len(items) < 2:
            # A single item has no bundle; items whose titles say nothing may have some.
            return Answer(session.id, confidence=1.0 if len(session.items) < 2 else 0.0)
        titles_ND, logits_NN = self.read([item.title for item in items])
        choice = self.decision.choose(logits_NN)
        bundles = self._bundles(session, items, titles_ND, choice)
        changed: tuple[str, ...] = ()
        if rules is not None:
            choice, bundles, changed = self._under(
                rules, session, items, titles_ND, choice, bundles
            )
        known = float(self.familiarity(titles_ND).mean())
        return Answer(
            session.id, bundles, confidence=round(choice.confidence * known, 4), changed=changed
        )

    def _under(
        self,
        rules: BundleRules,
        session: Session,
        items: Sequence[Item],
        titles_ND: Floats,
        choice: Choice,
        bundles: tuple[Bundle, ...],
    ) -> tuple[Choice, tuple[Bundle, ...], tuple[str, ...]]:
        """The choice under rules, its bundles, and what those chosen without rules lost."""
        free = [place for place, item in enumerate(items) if not rules.bar(item)]
        items, titles_ND = [items[place] for place in free], titles_ND[free]
        logits_NN = self._logits(titles_ND)
        limits = Constraints(
            rules, session, items, logits_NN, lambda c: self._kind(items, titles_ND, c)[0]
        )
        if limits.satisfied(bundles):
            return choice, bundles, ()
        pins = Choice(tuple(limits.groups), 0.0, (0.0,) * len(limits.groups))
        pinned = self._bundles(session, items, titles_ND, pins)
        choice = self.decision.choose(logits_NN, limits)
        found = self._bundles(session, items, titles_ND, choice)
        return choice, *told(rules, session, bundles, pinned, found)

    def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
        """See `Grouping`; None if the mean nearness is below `Familiarity.usual`."""
        titles_ND = self._embed(sorted(titles))
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
        titles_ND = self._embed(titles)
        return titles_ND, self._logits(titles_ND)

    def _embed(self, titles: Sequence[str]) -> Floats:
        """Embeddings of titles, or hashed words if neither MiniLM nor training knows them."""
        with self._lock, torch.inference_mode():
            titles_ND: Floats = embed(self.encoder, titles).double().numpy()
        if not np.isfinite(titles_ND).all():
            raise ArtifactError(f"{self.folder}: damaged: its embeddings are not finite")
        new = foreign(self.encoder, self.record.get("encoder"), titles)
        if new.any() and self.familiarity.nearness(titles_ND[new]).mean() < self.familiarity.usual:
            titles_ND[new] = hashed_terms(titles, titles_ND.shape[1])[new]
        return titles_ND

    def _logits(self, titles_ND: Floats) -> Floats:
        logits = np.zeros((len(titles_ND), len(titles_ND)))
        if len(titles_ND) > 1:
            with self._lock, torch.inference_mode():
                pairs = self.head(torch.from_numpy(titles_ND).float()).double().numpy()
            upper = np.triu_indices(len(titles_ND), k=1)
            logits[upper] = logits.T[upper] = pairs
        return logits

    def _kind(
        self, items: Sequence[Item], titles_ND: Floats, places: Iterable[int]
    ) -> tuple[Kind | None, float | None]:
        """The kind of a bundle and its probability; None if this grouping names no kinds."""
        if self.kinds is None:
            return None, None
        inside = sorted(places)
        return self.kinds.of([items[place].title for place in inside], titles_ND[inside])

    def _bundles(
        self, session: Session, items: Sequence[Item], titles_ND: Floats, choice: Choice
    ) -> tuple[Bundle, ...]:
        """The chosen bundles; items and bundles are in the order of the session."""
        found = []
        for places, confidence in zip(choice.bundles, choice.bundle_confidence, strict=True):
            inside = sorted(places)
            ids = {items[place].id for place in inside}
            kind, sure = self._kind(items, titles_ND, inside)
            known = float(self.familiarity(titles_ND[inside]).mean())
            found.append(
                Bundle(
                    tuple(item.id for item in session.items if item.id in ids),
                    kind=kind,
                    kind_confidence=sure,
                    confidence=round(confidence * known, 4),
                )
            )
        return tuple(sorted(found, key=lambda bundle: session.number(bundle.item_ids[0])))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a grouping that `train` saved.

        Args:
            folder: The folder ``grouping`` in a folder of experts.

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
                Linear.read(heads, "f1", 1, FEATURES),
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
            # An encoder of other dimensions fails only when it is used.
            familiarity(grouping.read(["one", "other"])[0])
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"{folder}: missing or damaged: {error}") from error
        return grouping
