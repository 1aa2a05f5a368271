"""A routed student as a few plain LoRAs, for servers that choose a LoRA per request.

The router's gates over a set of sessions are clustered; each cluster's centre, a fixed fusion, is
one plain LoRA, a *prototype*. What is lost against exact routing is measured on other sessions.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import SoftmaxRouter
from routedk.adapters.experts.router_inputs import router_input
from routedk.adapters.experts.routing_file import ROUTER_FILE
from routedk.adapters.export.card import base_name, gates_fact, lora_facts, serving, write_card
from routedk.adapters.export.embedding_rows import EmbeddingRows
from routedk.adapters.export.export import new_folder
from routedk.adapters.export.fidelity import Asked, Fidelity, losses, summary
from routedk.adapters.export.gate_clusters import cluster, nearest
from routedk.adapters.export.plain_lora import PlainLora, fold, server_rank
from routedk.adapters.export.prototypes import (
    PROTOTYPES_FILE,
    SCHEMA,
    PrototypeNote,
    PrototypesNote,
    StudentNote,
    pool,
)
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import find_student
from routedk.adapters.training.examples import Writes
from routedk.errors import SettingError
from routedk.files import write_json
from routedk.programs.prompting.layout import Message
from routedk.programs.prompting.reading import session_lines

Prompts = Mapping[str, Sequence[Message]]


@dataclass(frozen=True, kw_only=True)
class PrototypeSettings:
    """How prototypes are made and measured.

    Args:
        k: Prototypes, at least 1 and at most the distinct gates of the sessions.
        seed: Of the clustering and of the sample of sessions whose answers are compared.
        sample: Held-out sessions whose answers are compared, at least 1.
        form: What a prompt with a session is answered with.
        max_rank: Highest rank of a prototype allowed; None for any.
        truncate: Whether a higher rank is cut down to it, or refused.
    """

    k: int
    seed: int = 0
    sample: int = 20
    form: Writes = "item-intents"
    max_rank: int | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        if self.k < 1 or self.sample < 1:
            raise SettingError(f"k={self.k}, sample={self.sample}: both are at least 1")


def export_prototypes(
    routed: RoutedStudent,
    folder: str | Path,
    prompts: Prompts,
    held_out: Prompts,
    settings: PrototypeSettings,
    card: Mapping[str, Any] | None = None,
) -> Fidelity:
    """Write prototypes as plain PEFT LoRAs, and what maps a prompt to its prototype.

    Args:
        routed: With a router of fusion softmax, top1 or layerwise.
        folder: Made by this call: ``prototypes.json``, ``router.safetensors``, ``README.md``, and
            one folder per prototype, named by a hash of its content.
        prompts: Messages by session id, at least one: the router's gates for them are clustered.
        held_out: The same of other sessions, at least one, on which the loss is measured.
        settings: How.
        card: Further lines of the cards, e.g. data and metrics.

    Raises:
        SettingError: The fusion's gates are none of a session's or need
            the student's layers, there are fewer distinct gates
            than prototypes, no session is left to measure on, or a rank is too high.
        ArtifactError: The folder exists and is not empty.
    """
    _check_fusion(routed)
    if not prompts or not held_out or set(prompts) & set(held_out):
        raise SettingError(
            f"prototypes of {len(prompts)} sessions, measured on {len(held_out)}: give at least "
            "one of each, none in both"
        )
    gates_SLE = _gates(routed, prompts)
    centres_KLE = cluster(gates_SLE, settings.k, settings.seed)
    loras = [
        fold(routed, _rows(centre), max_rank=settings.max_rank, truncate=settings.truncate)
        for centre in centres_KLE
    ]
    names = [f"proto-{lora.content_hash}" for lora in loras]
    places = nearest(gates_SLE.flatten(1), centres_KLE.flatten(1)).tolist()
    counts = Counter(places)
    with new_folder(folder) as ready:
        student = _student_note(routed, prompts)
        more = dict(card or {})
        for name, lora, centre in zip(names, loras, centres_KLE, strict=True):
            (ready / name).mkdir()
            lora.write(ready / name)
            _write_prototype_card(ready / name, routed, lora, centre, more)
        save_file(routed.fusion.state_dict(), ready / ROUTER_FILE)
        found = _measure(routed, ready, names, centres_KLE, held_out, settings)
        note = PrototypesNote.model_validate(
            {
                "schema": SCHEMA,
                "student": student,
                "experts": list(routed.settings.experts),
                "fusion": routed.fusion_name,
                "router_input": routed.settings.router_input,
                "seed": settings.seed,
                "max_lora_rank": server_rank(max(lora.rank for lora in loras)),
                "prototypes": [
                    PrototypeNote(
                        name=name, gates=centre.tolist(), rank=lora.rank, sessions=counts[place]
                    )
                    for place, (name, lora, centre) in enumerate(
                        zip(names, loras, centres_KLE, strict=True)
                    )
                ],
                "sessions": {key: names[place] for key, place in zip(prompts, places, strict=True)},
                "fidelity": asdict(found),
            }
        )
        write_json(ready / PROTOTYPES_FILE, note.model_dump(by_alias=True))
        _write_card(ready, routed, note, loras, found, more)
    return found


def _check_fusion(routed: RoutedStudent) -> None:
    name = routed.fusion_name
    if name == "sparsegen":
        raise SettingError(
            "fusion 'sparsegen' has gates of its own for each token, which no LoRA can hold: "
            "train softmax, top1 or layerwise for prototypes"
        )
    if not isinstance(routed.fusion, SoftmaxRouter):
        raise SettingError(
            f"fusion {name!r} has the same gates for every session: export one plain LoRA"
        )
    looks_at = routed.settings.router_input
    if router_input(looks_at).hidden:
        raise SettingError(
            f"router input {looks_at!r} is computed by the student's own layers, which a client "
            "of a server has not: train the router on session or prompt for prototypes"
        )


def _gates(routed: RoutedStudent, prompts: Prompts) -> Tensor:
    """The router's gates; *shape* (sessions, rows of gates, experts)."""
    encoded = [encode_prompt(routed.tokenizer, messages) for messages in prompts.values()]
    gates = routed.gates(encoded)
    assert isinstance(gates, Tensor)
    gates = gates.float().cpu()
    return gates if gates.ndim == 3 else gates[:, None]


def _rows(centre_LE: Tensor) -> Tensor:
    """A centre as `fold` takes it: one row of gates is meant for every layer."""
    return centre_LE[0] if len(centre_LE) == 1 else centre_LE


def _measure(
    routed: RoutedStudent,
    folder: Path,
    names: Sequence[str],
    centres_KLE: Tensor,
    held_out: Prompts,
    settings: PrototypeSettings,
) -> Fidelity:
    gates_SX = _gates(routed, held_out).flatten(1)
    centres_KX = centres_KLE.flatten(1)
    places = nearest(gates_SX, centres_KX)
    keys = list(held_out)
    sampled = random.Random(settings.seed).sample(range(len(keys)), min(settings.sample, len(keys)))
    folders: dict[Path, list[Asked]] = {}
    for k in sampled:
        messages = held_out[keys[k]]
        lines = session_lines(messages[-1]["content"])
        asked = Asked(
            prompt=encode_prompt(routed.tokenizer, messages),
            items=tuple(lines.split("\n")) if lines else (),
        )
        folders.setdefault(folder / names[int(places[k])], []).append(asked)
    return summary(gates_SX, centres_KX[places], losses(routed, folders, settings.form))


def _student_note(routed: RoutedStudent, prompts: Prompts) -> StudentNote:
    """The student, once it is sure that its gates can be computed from rows of its file."""
    student = routed.student
    weight = student.model.get_input_embeddings().weight
    named = student.model.named_parameters()
    tensor = next((name for name, parameter in named if parameter is weight), "")
    rows = EmbeddingRows(find_student(student.name, wanted=student.fingerprint), tensor)
    prompt = encode_prompt(routed.tokenizer, next(iter(prompts.values())))
    inside = routed.router_inputs([prompt])[0].cpu()
    outside = pool(rows, prompt, routed.settings.router_input)
    if float((inside - outside).norm()) > 0.01 * float(inside.norm()):
        raise SettingError(
            f"the student {student.name!r} does more with its embeddings than look them up: a "
            "client could not compute the router's gates; export merged or one expert"
        )
    return StudentNote(
        name=student.name, fingerprint=student.fingerprint, embeddings=tensor, probe=rows.probe()
    )


def _write_prototype_card(
    folder: Path, routed: RoutedStudent, lora: PlainLora, centre_LE: Tensor, more: dict[str, Any]
) -> None:
    facts = {
        **lora_facts(lora),
        "fusion": f"one prototype of {routed.fusion_name}",
        "gates": gates_fact(routed, centre_LE.mean(dim=0).tolist())
        + (" on the mean over layers" if len(centre_LE) > 1 else ""),
        **more,
    }
    serve = serving(base_name(routed), {folder.name: "."}, lora.rank)
    write_card(folder, routed, facts, library="peft", serve=serve)


def _write_card(
    folder: Path,
    routed: RoutedStudent,
    note: PrototypesNote,
    loras: Sequence[PlainLora],
    found: Fidelity,
    more: dict[str, Any],
) -> None:
    largest = max(loras, key=lambda lora: lora.rank)
    worst = max(loras, key=lambda lora: lora.error)
    facts = {
        **lora_facts(largest),
        **{key: fact for key, fact in lora_facts(worst).items() if key == "truncated"},
        "form": f"{len(loras)} LoRAs (prototypes) of rank {largest.rank} at most",
        "fusion": f"{routed.fusion_name}, the nearest prototype for each session",
        "sessions clustered": len(note.sessions),
        **found.lines(),
        **more,
    }
    paths = {prototype.name: prototype.name for prototype in note.prototypes}
    serve = serving(base_name(routed), paths, largest.rank)
    write_card(folder, routed, facts, library="peft", serve=serve, more=_CLIENT)


_CLIENT = (
    "A client names the prototype of a session as the request's model:",
    "",
    "```python",
    "from routedk.adapters import Prototypes",
    "",
    'prototypes = Prototypes.load("FOLDER")  # tokenizer, router and embedding rows only',
    "model = prototypes.adapter_for(messages)",
    "```",
    "",
)
