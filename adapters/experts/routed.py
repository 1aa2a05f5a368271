"""The routed student: a frozen student, its LoRA experts and a fusion, in memory and on disk."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from routedk.adapters.experts.fused import connect, fused_layers
from routedk.adapters.experts.lora_config import write_lora_config
from routedk.adapters.experts.peft_model import add_experts, check_student
from routedk.adapters.experts.router import ROUTERS, Gates, make_fusion
from routedk.adapters.experts.routing_file import (
    ROUTER_FILE,
    ROUTING_FILE,
    ExpertSettings,
    read_routing,
    settings_of,
    write_routing,
)
from routedk.adapters.experts.weights import read_expert, read_router
from routedk.adapters.prompts import EncodedPrompt
from routedk.adapters.student import Student, load_student
from routedk.artifacts import check_output
from routedk.errors import ArtifactError, SettingError


class RoutedStudent:
    """A student with fused experts.

    Args:
        student: The frozen base.
        settings: The shape of the experts.
        fusion: Where gates come from: a name in the table of `routedk.adapters.experts.router`.
        mean_gates: The router's mean gates over its training rows, used by ``merged``.

    Attributes:
        model: The PEFT model; its experts are adapters named ``expert_<name>``.
        first_layer: The lowest decoder layer that has experts.
        fusion: The fusion as a module; for ``softmax`` the router.
        fusion_name: Its public name.
        training: How the experts were trained, as ``routing.json`` states.

    Raises:
        SettingError: The student has experts already, or the rank is above its hidden size.
    """

    def __init__(
        self,
        student: Student,
        settings: ExpertSettings | None = None,
        fusion: str = "softmax",
        mean_gates: Sequence[float] | None = None,
    ) -> None:
        self.student = student
        self.mean_gates = mean_gates
        self.training: dict[str, Any] = {}
        self.settings = settings or ExpertSettings()
        self.adapters = tuple(f"expert_{name}" for name in self.settings.experts)
        check_student(student)
        depth = student.model.config.num_hidden_layers
        self.first_layer = max(0, depth - (self.settings.layers or depth))
        self.model = add_experts(student.model, self.settings, self.adapters, self.first_layer)
        layers = student.model.base_model.layers[self.first_layer :]
        self.gate_state, self._hooks = connect(self.adapters, layers, self.settings.r)
        self.use_fusion(fusion)
        self.model.requires_grad_(False)
        self.model.eval()

    @property
    def tokenizer(self) -> Any:
        """The student's tokenizer."""
        return self.student.tokenizer

    @property
    def device(self) -> torch.device:
        """The student's device."""
        device: torch.device = self.student.model.device
        return device

    def use_fusion(self, name: str) -> None:
        """Switch to another fusion; a trained router is discarded."""
        config = self.student.model.config
        layers = config.num_hidden_layers - self.first_layer
        self.fusion: nn.Module = make_fusion(
            name, self.settings.experts, config.hidden_size, layers, self.mean_gates
        )
        self.fusion.to(self.device)
        self.fusion_name = name

    def freeze(self) -> None:
        """Stack the experts' matrices once; call this when the experts no longer change."""
        for layer in fused_layers(self.model):
            layer.freeze()

    def train_experts(self) -> None:
        """Make the experts, and nothing else, trainable; call this before `freeze`."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_("lora_" in name)

    def read_expert(self, name: str, folder: str | Path) -> None:
        """Overwrite an expert with a plain PEFT folder of the same shape, before `freeze`.

        Raises:
            ArtifactError: It is missing, damaged, or of another shape.
        """
        read_expert(self.model, f"expert_{name}", Path(folder))

    def unload(self) -> Student:
        """Remove the experts from the student, which may then get others."""
        for hook in self._hooks:
            hook.remove()
        self.model.unload()
        return self.student

    @torch.no_grad()
    def router_inputs(self, prompts: Sequence[EncodedPrompt]) -> Tensor:
        """Pool these prompts for the router; *shape* (batch, hidden)."""
        embed = self.student.model.get_input_embeddings()
        whole = self.settings.router_input == "prompt"
        pooled = []
        for prompt in prompts:
            first, end = (0, None) if whole else prompt.span
            ids = torch.tensor(prompt.ids[first:end], device=self.device)
            pooled.append(embed(ids).float().mean(dim=0))
        return torch.stack(pooled)

    @torch.no_grad()
    def gates(self, prompts: Sequence[EncodedPrompt]) -> Gates:
        """The gates for these prompts, in expert order; each prompt is routed separately."""
        rows: list[Gates] = [self.fusion(row[None]) for row in self.router_inputs(prompts)]
        tensors = [row for row in rows if isinstance(row, Tensor)]
        # Gates per token are computed layer by layer, in the same way for every prompt.
        return torch.cat(tensors) if tensors else rows[0]

    def starts(self, session_starts: Sequence[int] | Tensor) -> Tensor | None:
        """The position from which experts are active in each prompt; None if from the first.

        Args:
            session_starts: The position of the first of each session's own tokens.
        """
        if self.settings.experts_from == "start":
            return None
        return torch.as_tensor(session_starts, device=self.device)

    def gating(
        self, prompts: Sequence[EncodedPrompt]
    ) -> Callable[[Sequence[int]], AbstractContextManager[None]]:
        """Route prompts once; returns a function that fuses the experts for some, by index."""
        gates = self.gates(prompts)
        starts = self.starts([prompt.span[0] for prompt in prompts])

        def use(places: Sequence[int]) -> AbstractContextManager[None]:
            rows = list(places)
            mine = gates[rows] if isinstance(gates, Tensor) else gates
            return self.gate_state.use(mine, None if starts is None else starts[rows])

        return use

    def fingerprint(self) -> str:
        """A hash of the experts' shape and weights, the router and the fusion's name."""
        digest = hashlib.sha256(repr((self.fusion_name, self.settings)).encode())
        experts = ((n, p) for n, p in self.model.named_parameters() if "lora_" in n)
        for name, tensor in (*experts, *self.fusion.state_dict().items()):
            digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save_experts(self, folder: Path) -> None:
        """Write each expert as a plain PEFT folder."""
        self.model.save_pretrained(
            folder, selected_adapters=list(self.adapters), save_embedding_layers=False
        )
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        for adapter in self.adapters:
            config = self.model.peft_config[adapter]
            write_lora_config(config, self.student.weights_name, folder / adapter)

    def save(self, folder: str | Path) -> None:
        """Write plain PEFT folders, ``router.safetensors`` and ``routing.json``.

        Args:
            folder: Created by this call.

        Raises:
            ArtifactError: The folder exists and is not empty.
        """
        folder = Path(folder)
        check_output(folder)
        self.save_experts(folder)
        save_file(self.fusion.state_dict(), folder / ROUTER_FILE)
        base = {"name": self.student.name, "fingerprint": self.student.fingerprint}
        write_routing(folder, base, self.settings, self.fusion_name, self.mean_gates, self.training)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        fusion: str | None = None,
        student: Student | None = None,
        dtype: str | None = None,
    ) -> "RoutedStudent":
        """Load trained experts.

        Args:
            folder: Folder with ``routing.json``.
            fusion: A fusion other than the saved one, e.g. ``uniform`` or ``single:rule``.
            student: The base, if it is already loaded; by default found by its saved name.
            dtype: Precision of a base loaded now, see `load_student`.

        Raises:
            ArtifactError: The folder is incomplete, or belongs to another student.
            SettingError: The fusion is unknown, or would need a router that was not trained.
        """
        folder = Path(folder)
        document = read_routing(folder)
        name, fingerprint = document["student"]["name"], document["student"]["fingerprint"]
        base = student or load_student(name, dtype=dtype, wanted=fingerprint)
        if base.fingerprint != fingerprint:
            raise ArtifactError(
                f"{folder}: trained on the student {document['student']}, but the one here has "
                f"fingerprint {base.fingerprint}; experts fit the weights they were trained on only"
            )
        check_student(base)
        try:
            routed = cls(
                base, settings_of(document), document["fusion"], document.get("mean_gates")
            )
        except ValueError as error:  # PEFT's, too, e.g. for target_modules that the student lacks
            raise ArtifactError(f"{folder / ROUTING_FILE}: {error}") from error
        routed.training = document.get("training") or {}
        for expert in routed.settings.experts:
            routed.read_expert(expert, folder / f"expert_{expert}")
        if fusion in (None, routed.fusion_name):
            read_router(routed.fusion, folder)
        elif fusion in ROUTERS:
            raise SettingError(
                f"fusion {fusion!r}: these experts were trained with {document['fusion']!r}, and "
                "no router of another kind is known; train with it, or use merged, uniform or "
                "single:EXPERT"
            )
        else:
            routed.use_fusion(fusion)
        routed.freeze()
        return routed
