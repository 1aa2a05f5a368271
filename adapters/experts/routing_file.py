"""``routing.json``: which experts a folder holds, on which student, and how they are fused."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from routedk.checks import check_choices, check_least
from routedk.data.validation import checked
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json, write_json

SCHEMA = 2
ROUTING_FILE = "routing.json"
GROUPING_FOLDER = "grouping"
ROUTER_FILE = "router.safetensors"
_REMEDY = "train the experts again"
# The router's input as named in files from before there was a choice.
_FORMER_INPUT = "mean input embedding of the session's tokens"
EXPERTS = ("base", "rule", "thought")
RouterInput = Literal["session", "prompt"]
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class ExpertSettings:
    """The shape of the experts.

    Args:
        experts: Names, in gate order: lower-case letters, digits and ``_``.
        r: Rank of each expert, at least 1 and at most the student's hidden size.
        lora_alpha: LoRA scaling is ``lora_alpha / r``; at least 1.
        target_modules: Linear layers that get experts, by the last part of their names. If a
            student lacks some of the default ones, all its linear layers.
        layers: Number of top decoder layers that get experts; None for all. The layers below are
            computed once per row in training.
        router_input: Tokens of a prompt whose mean input embedding a router sees: ``session``, the
            session's own, whatever knowledge goes with it; or ``prompt``, all.
        experts_from: Token of a prompt from which the experts are active, in training and in use:
            ``start``, or ``session``, the first of the session's own. In the latter case, what
            precedes the session (instruction, rules, demos) is computed by the frozen student
            alone, once for all sessions and gates.
    """

    experts: tuple[str, ...] = EXPERTS
    r: int = 8
    lora_alpha: int = 16
    target_modules: tuple[str, ...] = TARGET_MODULES
    layers: int | None = 8
    router_input: RouterInput = "session"
    experts_from: Literal["start", "session"] = "start"

    def __post_init__(self) -> None:
        if not self.experts or len(set(self.experts)) != len(self.experts):
            raise SettingError(f"experts {self.experts}: give at least one, no name twice")
        bad = [name for name in self.experts if not re.fullmatch(r"[a-z0-9_]+", name)]
        if bad:  # They become folders and parts of tensor names.
            raise SettingError(f"experts {bad}: names are of lower-case letters, digits and _")
        check_least(self, r=1, lora_alpha=1, layers=1)
        check_choices(self)


class _StudentName(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    fingerprint: str


class _Training(BaseModel):
    """The part of the training record that is read back."""

    model_config = ConfigDict(strict=True)

    answer_form: Literal["bundle-intent", "item-intents", "bundles"] = "item-intents"
    utilization: str | None = None


class _Routing(BaseModel):
    """The required part of ``routing.json``; further entries say how the experts were trained."""

    model_config = ConfigDict(strict=True)

    schema_version: int = Field(alias="schema")
    student: _StudentName
    experts: list[str]
    r: int
    lora_alpha: int
    target_modules: list[str]
    layers: int | None
    fusion: str
    router_input: str = "session"
    experts_from: str = "start"
    mean_gates: list[float] | None = None
    training: _Training | None = None


def read_routing(folder: str | Path) -> dict[str, Any]:
    """Read ``routing.json`` from a folder of experts.

    Raises:
        ArtifactError: It is missing, damaged, or of another schema.
    """
    path = Path(folder) / ROUTING_FILE
    if not os.path.lexists(path):
        raise ArtifactError(f"{path}: no such file; is {folder} what `train` wrote?")
    try:
        document = read_json(path)
        known = document if isinstance(document, dict) else {}
        if (schema := known.get("schema")) != SCHEMA:
            problem = f"schema {schema!r}, this version reads {SCHEMA}"
            raise DataError(problem, path=path, hint=_REMEDY)
        checked(TypeAdapter(_Routing), known, path=path, hint=_REMEDY)
    except DataError as error:
        raise ArtifactError(str(error)) from None
    return known


def settings_of(document: Mapping[str, Any]) -> ExpertSettings:
    """The shape of the experts that ``routing.json`` states.

    Raises:
        SettingError: It is not allowed.
    """
    looks_at = document.get("router_input", _FORMER_INPUT)
    return ExpertSettings(
        experts=tuple(document["experts"]),
        r=document["r"],
        lora_alpha=document["lora_alpha"],
        target_modules=tuple(document["target_modules"]),
        layers=document["layers"],
        router_input="session" if looks_at == _FORMER_INPUT else looks_at,
        experts_from=document.get("experts_from", "start"),
    )


def write_routing(
    folder: Path,
    student: Mapping[str, str],
    settings: ExpertSettings,
    fusion: str,
    mean_gates: Sequence[float] | None,
    training: Mapping[str, Any] | None,
) -> None:
    """Write ``routing.json`` into a folder of experts.

    Args:
        folder: The folder of experts.
        student: Its ``name`` and ``fingerprint``.
        settings: The shape of the experts.
        fusion: Public name of their fusion.
        mean_gates: The router's mean gates over the rows it was trained on.
        training: How the experts were trained.
    """
    document = {
        "schema": SCHEMA,
        "student": dict(student),
        **asdict(settings),
        "fusion": fusion,
        "mean_gates": None if mean_gates is None else [*mean_gates],
    }
    if training:
        document["training"] = dict(training)
    write_json(folder / ROUTING_FILE, document)
