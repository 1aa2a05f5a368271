"""Which of an export's prototypes answers a prompt, told without loading the student.

A server of many plain LoRAs cannot fuse experts per session. It can serve a few fixed fusions,
the prototypes, and a client that knows which one is nearest to what the router wants for a
prompt names that one in its request. The router reads the mean of some tokens' input embeddings
and nothing else, so the client needs the tokenizer, those tokens' rows of the embedding matrix and
the router: no forward pass of the student.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from routedk.adapters.experts.router import make_fusion
from routedk.adapters.experts.router_inputs import router_input
from routedk.adapters.experts.routing_file import ROUTER_FILE
from routedk.adapters.export.embedding_rows import EmbeddingRows
from routedk.adapters.export.gate_clusters import nearest
from routedk.adapters.prompts import EncodedPrompt, encode_prompt
from routedk.adapters.student import find_student
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json
from routedk.programs.prompting.layout import Message

SCHEMA = 1
PROTOTYPES_FILE = "prototypes.json"

_Gate = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class StudentNote(_Part):
    """The student whose tokenizer and embeddings the router reads."""

    name: str
    fingerprint: str
    embeddings: str
    probe: str


class PrototypeNote(_Part):
    """One prototype: its folder's name, its gates (a row per layer, or one for all), its size."""

    name: str = Field(pattern="^proto-[0-9a-f]{16}$")
    gates: list[list[_Gate]] = Field(min_length=1)
    rank: int = Field(ge=1)
    sessions: int = Field(ge=0)


class PrototypesNote(_Part):
    """What ``prototypes.json`` holds."""

    schema_version: Literal[1] = Field(alias="schema")
    student: StudentNote
    experts: list[str]
    fusion: Literal["softmax", "top1", "layerwise"]
    router_input: Literal["session", "prompt"]
    seed: int
    max_lora_rank: int | None = Field(ge=1)
    prototypes: list[PrototypeNote] = Field(min_length=1)
    sessions: dict[str, str]
    fidelity: dict[str, JsonValue]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [prototype.name for prototype in self.prototypes]
        layers = len(self.prototypes[0].gates)
        for prototype in self.prototypes:
            if len(prototype.gates) != layers or any(
                len(row) != len(self.experts) or abs(sum(row) - 1) > 1e-3 for row in prototype.gates
            ):
                raise ValueError("prototypes: one gate per expert, summing to one, rows alike")
        if len(set(names)) != len(names):
            raise ValueError("prototypes: a name stands twice")
        if lost := set(self.sessions.values()) - set(names):
            raise ValueError(f"sessions: no prototype {sorted(lost)[0]}")
        return self


class Prototypes:
    """Maps prompts to the prototypes of one export.

    Loading reads a small JSON, the router and the tokenizer. A prompt then costs one tokenisation,
    the reading of embedding rows (one per distinct token that the router looks at, from a file
    that is mapped into memory) and the router's one small product. The student's layers are never
    loaded.

    Args:
        note: What ``prototypes.json`` says.
        router: Trained, in evaluation mode.
        tokenizer: The student's.
        rows: The student's input embeddings.
    """

    def __init__(
        self, note: PrototypesNote, router: nn.Module, tokenizer: Any, rows: EmbeddingRows
    ) -> None:
        self.note = note
        self.names = tuple(prototype.name for prototype in note.prototypes)
        self._router = router
        self._tokenizer = tokenizer
        self._rows = rows
        self._centres_KX = centres(note)

    @torch.no_grad()
    def gates(self, messages: Sequence[Message]) -> Tensor:
        """The router's gates; *shape* (rows of gates, experts), a row per layer or one for all."""
        prompt = encode_prompt(self._tokenizer, messages)
        pooled_H = pool(self._rows, prompt, self.note.router_input)
        found: Tensor = self._router(pooled_H[None])
        return found.reshape(-1, found.shape[-1])

    def adapter_for(self, messages: Sequence[Message]) -> str:
        """The name of the prototype whose gates are nearest to the router's for a prompt.

        Args:
            messages: As they are sent to the server, e.g. ``BundleGenerator().messages(session)``.
        """
        place = nearest(self.gates(messages).reshape(1, -1), self._centres_KX)
        return self.names[int(place)]

    def adapter_of(self, session_id: str) -> str | None:
        """The prototype of a session that the prototypes were made from; None for another."""
        return self.note.sessions.get(session_id)

    @classmethod
    def load(cls, folder: str | Path, *, student: str | None = None) -> "Prototypes":
        """Load what ``routedk export --form prototypes`` wrote.

        Args:
            folder: With ``prototypes.json`` and ``router.safetensors``.
            student: Folder or name of the student, where it is elsewhere than at the export.

        Raises:
            ArtifactError: The folder is not whole, or the student is another.
            StudentError: The student is not found.
        """
        from transformers import AutoTokenizer

        folder = Path(folder)
        note = read_prototypes(folder)
        place = find_student(student or note.student.name, wanted=note.student.fingerprint)
        rows = EmbeddingRows(place, note.student.embeddings)
        if rows.probe() != note.student.probe:
            raise ArtifactError(
                f"{folder}: made for the student {note.student.name!r}, but the one in {place} has "
                "other embeddings: name its folder as student"
            )
        tokenizer: Any = AutoTokenizer.from_pretrained(place)
        return cls(note, _load_router(folder, note, rows.shape[1]), tokenizer, rows)


def pool(rows: EmbeddingRows, prompt: EncodedPrompt, router_input_name: str) -> Tensor:
    """What the router sees of a prompt, from rows of the embedding matrix; *shape* (hidden)."""
    looks_at = router_input(router_input_name)
    return looks_at.pool(rows.of(prompt.ids), prompt.span, len(prompt.ids))


def centres(note: PrototypesNote) -> Tensor:
    """The prototypes' gates, a flat row each; *shape* (prototypes, gates)."""
    rows = [prototype.gates for prototype in note.prototypes]
    return torch.tensor(rows, dtype=torch.float32).flatten(1)


def read_prototypes(folder: Path) -> PrototypesNote:
    """Read ``prototypes.json``.

    Raises:
        ArtifactError: It is missing, damaged, or of another schema.
    """
    path = folder / PROTOTYPES_FILE
    try:
        document = read_json(path)
    except DataError as error:
        raise ArtifactError(str(error)) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(
            f"{path}: schema {schema!r}, this version reads {SCHEMA} (export the prototypes again)"
        )
    try:
        return PrototypesNote.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise ArtifactError(f"{path}: {where}: {first['msg']}") from None


def _load_router(folder: Path, note: PrototypesNote, width: int) -> nn.Module:
    layers = len(note.prototypes[0].gates)
    try:
        router = make_fusion(note.fusion, note.experts, width, layers)
        router.load_state_dict(load_file(folder / ROUTER_FILE))
    except (OSError, RuntimeError, SafetensorError, SettingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{folder / ROUTER_FILE}: missing or damaged: {reason}") from None
    return router.eval()
