"""The routed student: a frozen student, its LoRA experts and a fusion, in memory and on disk."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from routedk.adapters.experts.fused import connect, expert_config, fused_layers, register_fused
from routedk.adapters.experts.router import LEARNT, Gates, SoftmaxRouter, make_fusion
from routedk.adapters.experts.router_inputs import router_input
from routedk.adapters.experts.routing_file import (
    ROUTER_FILE,
    ROUTING_FILE,
    SCHEMA,
    ExpertSettings,
    check_replaceable,
    read_routing,
    settings_of,
)
from routedk.adapters.prompts import EncodedPrompt
from routedk.adapters.student import Student, load_student
from routedk.adapters.training.lower import lower_hidden
from routedk.adapters.trees import grow_tree
from routedk.errors import ArtifactError, SettingError

__all__ = [
    "ROUTER_FILE",
    "ROUTING_FILE",
    "ExpertSettings",
    "RoutedStudent",
    "check_replaceable",
    "read_routing",
]


class RoutedStudent:
    """A student with fused experts.

    Args:
        student: The frozen base.
        settings: The shape of the experts.
        fusion: How gates come about: a name in the table of `routedk.adapters.experts.router`.
        mean_gates: The router's mean gates over what it was trained on, which ``merged`` is.

    Attributes:
        model: The PEFT model; its experts are adapters named ``expert_<name>``.
        first_layer: The lowest decoder layer that has experts.
        fusion: The fusion as a module; for ``softmax`` the router.
        fusion_name: Its public name.

    Raises:
        SettingError: The student has experts already, or no decoder layers where they are sought,
            or the rank is above its hidden size.
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
        self.settings = settings or ExpertSettings()
        self.adapters = tuple(f"expert_{name}" for name in self.settings.experts)
        if fused_layers(student.model):
            raise SettingError(f"the student {student.name!r} has experts already: load it again")
        if not hasattr(getattr(student.model, "model", None), "layers"):
            raise SettingError(
                f"the student {student.name!r} is a {type(student.model).__name__}, without "
                "decoder layers under model.layers: use a student like Llama, Qwen or SmolLM2"
            )
        _check_rank(self.settings, student)
        depth = student.model.config.num_hidden_layers
        self.first_layer = max(0, depth - (self.settings.layers or depth))
        config = expert_config(
            self.settings.r,
            self.settings.lora_alpha,
            list(self.settings.target_modules),
            layers=range(self.first_layer, depth),
        )
        self.model: PeftModel = get_peft_model(student.model, config, adapter_name=self.adapters[0])
        for adapter in self.adapters[1:]:
            self.model.add_adapter(adapter, register_fused(replace(config)))
        self._finish(fusion)

    def _finish(self, fusion: str) -> None:
        layers = self.student.model.model.layers[self.first_layer :]
        self.gate_state = connect(self.adapters, layers, self.settings.r)
        self.use_fusion(fusion)
        self.model.requires_grad_(False)
        self.model.eval()

    @property
    def tokenizer(self) -> Any:
        """The student's tokenizer."""
        return self.student.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        device: torch.device = self.student.model.device
        return device

    def use_fusion(self, name: str) -> None:
        """Switch to another fusion; a router that was trained before is forgotten."""
        config = self.student.model.config
        layers = config.num_hidden_layers - self.first_layer
        self.fusion: nn.Module = make_fusion(
            name, self.settings.experts, config.hidden_size, layers, self.mean_gates
        )
        self.fusion.to(self.device)
        self.fusion_name = name

    def freeze(self) -> None:
        """Stack the experts' matrices once: to be called when the experts no longer change."""
        for layer in fused_layers(self.model):
            layer.freeze()

    def train_experts(self, only: Sequence[str] | None = None) -> None:
        """Make experts trainable, and nothing else.

        Args:
            only: Their names; None for all.
        """
        wanted = [f".expert_{name}." for name in only or self.settings.experts]
        for name, parameter in self.model.named_parameters():
            mine = "lora_" in name and any(part in name for part in wanted)
            parameter.requires_grad_(mine)
        for layer in fused_layers(self.model):
            layer.frozen_cat = None

    def copy_expert(self, source: str, targets: Sequence[str]) -> None:
        """Overwrite experts with the weights of another."""
        for layer in fused_layers(self.model):
            layer.frozen_cat = None
            for matrices in (layer.lora_A, layer.lora_B):
                weight = matrices[f"expert_{source}"].weight.data
                for target in targets:
                    matrices[f"expert_{target}"].weight.data.copy_(weight)

    def read_expert(self, name: str, folder: str | Path) -> None:
        """Overwrite an expert with one on disk, a plain PEFT folder of the same shape.

        Raises:
            ArtifactError: It is missing, damaged, or of another shape.
        """
        for layer in fused_layers(self.model):
            layer.frozen_cat = None
        _load_expert(self.model, Path(folder), f"expert_{name}")

    @torch.no_grad()
    def router_inputs(self, prompts: Sequence[EncodedPrompt]) -> Tensor:
        """What the router sees of these prompts, as the settings say; *shape* (batch, hidden)."""
        looks_at = router_input(self.settings.router_input)
        if looks_at.hidden and isinstance(self.fusion, SoftmaxRouter):
            trees = [grow_tree(prompt.ids, []) for prompt in prompts]
            decoder = self.student.model.model
            pad = self.tokenizer.pad_token_id
            rows = lower_hidden(decoder, trees, self.first_layer, pad, progress=False)
        else:
            embed = self.student.model.get_input_embeddings()
            rows = [embed(torch.tensor(p.ids, device=self.device)) for p in prompts]
        pooled = [
            looks_at.pool(row_TH, prompt.span, len(prompt.ids))
            for row_TH, prompt in zip(rows, prompts, strict=True)
        ]
        return torch.stack(pooled).to(self.device)

    @torch.no_grad()
    def gates(self, prompts: Sequence[EncodedPrompt]) -> Gates:
        """The gates for these prompts, experts in their order; each prompt is routed once."""
        rows: list[Gates] = [self.fusion(row[None]) for row in self.router_inputs(prompts)]
        tensors = [row for row in rows if isinstance(row, Tensor)]
        # Gates per token are made as the tokens come, the same way for every prompt.
        return torch.cat(tensors) if tensors else rows[0]

    def starts(self, session_starts: Sequence[int] | Tensor) -> Tensor | None:
        """The position from which experts are active in each prompt; None from the first on.

        Args:
            session_starts: The position of the first of each session's own tokens.
        """
        if self.settings.experts_from == "start":
            return None
        return torch.as_tensor(session_starts, device=self.device)

    @contextmanager
    def fused(self, prompts: Sequence[EncodedPrompt]) -> Iterator[None]:
        """Fuse the experts for these prompts, one per row of a batch, inside the block."""
        with self.gating(prompts)(range(len(prompts))):
            yield

    def gating(
        self, prompts: Sequence[EncodedPrompt]
    ) -> Callable[[Sequence[int]], AbstractContextManager[None]]:
        """Route prompts once, for passes over any of them.

        Returns:
            Makes a context in which the experts are fused for a batch of these prompts, given as
            places among them.
        """
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

    def save(self, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write plain PEFT folders, ``router.safetensors`` and ``routing.json``.

        Args:
            folder: Made anew; experts that stand there are replaced as a whole.
            extra: Further entries of ``routing.json``, e.g. how the experts were trained.

        Raises:
            ArtifactError: Something else than experts stands there.
        """
        folder = Path(folder).resolve()
        check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            ready = Path(scratch) / "ready"
            self.model.save_pretrained(
                ready, selected_adapters=list(self.adapters), save_embedding_layers=False
            )
            (ready / "README.md").unlink(missing_ok=True)  # a form of PEFT's that nobody filled in
            save_file(self.fusion.state_dict(), ready / ROUTER_FILE)
            document = {
                "schema": SCHEMA,
                "student": {"name": self.student.name, "fingerprint": self.student.fingerprint},
                **asdict(self.settings),
                "fusion": self.fusion_name,
                "mean_gates": None if self.mean_gates is None else [*self.mean_gates],
                **(extra or {}),
            }
            (ready / ROUTING_FILE).write_text(json.dumps(document, indent=2), encoding="utf-8")
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            ready.rename(folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        fusion: str | None = None,
        student: Student | None = None,
        dtype: str | None = None,
    ) -> "RoutedStudent":
        """Load what `save` wrote.

        Args:
            folder: With ``routing.json``.
            fusion: Another fusion than the saved one, e.g. ``uniform`` or ``single:rule``.
            student: The base, where it is loaded already; by default found by its saved name.
            dtype: Of a base that is loaded now, see `load_student`.

        Raises:
            ArtifactError: The folder is not whole, or belongs to another student.
            SettingError: The fusion is unknown, or would need a router that was not trained.
        """
        folder = Path(folder)
        document = read_routing(folder)
        base = student or load_student(
            document["student"]["name"], dtype=dtype, wanted=document["student"]["fingerprint"]
        )
        if base.fingerprint != document["student"]["fingerprint"]:
            raise ArtifactError(
                f"{folder}: trained on the student {document['student']}, but the one here has "
                f"fingerprint {base.fingerprint}; experts fit the weights they were trained on only"
            )
        try:
            settings = settings_of(document)
            _check_rank(settings, base)
            make_fusion(document["fusion"], settings.experts, 1, 1, document.get("mean_gates"))
        except SettingError as error:
            raise ArtifactError(f"{folder / ROUTING_FILE}: {error}") from None
        name = document["fusion"] if fusion is None else fusion
        if name in LEARNT and name != document["fusion"]:
            raise SettingError(
                f"fusion {name!r}: these experts were trained with {document['fusion']!r}, and no "
                "router of another kind is known; train with it, or use merged, uniform or "
                "single:EXPERT"
            )
        try:
            routed = cls(base, settings, name, document.get("mean_gates"))
        except SettingError:
            raise
        except ValueError as error:  # PEFT's, e.g. about target_modules that the student lacks
            raise _unreadable(folder / ROUTING_FILE, error) from error
        for adapter in routed.adapters:
            _load_expert(routed.model, folder / adapter, adapter)
        if routed.fusion_name == document["fusion"]:
            try:
                routed.fusion.load_state_dict(load_file(folder / ROUTER_FILE))
            except (OSError, RuntimeError, SafetensorError) as error:
                raise _unreadable(folder / ROUTER_FILE, error) from error
        routed.freeze()
        return routed


def _check_rank(settings: ExpertSettings, student: Student) -> None:
    hidden = student.model.config.hidden_size
    if settings.r > hidden:
        raise SettingError(f"r={settings.r}: at most {hidden}, the hidden size of {student.name!r}")


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path}: missing or damaged: {' '.join(str(error).split())[:300]}")


def _load_expert(model: PeftModel, folder: Path, adapter: str) -> None:
    from peft import set_peft_model_state_dict

    path = folder / "adapter_model.safetensors"
    try:
        weights = load_file(path)
        outcome = set_peft_model_state_dict(model, weights, adapter_name=adapter)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    missing = [key for key in outcome.missing_keys if f".{adapter}." in key]
    if missing or outcome.unexpected_keys:
        raise ArtifactError(
            f"{path}: {len(missing)} tensors missing, {len(outcome.unexpected_keys)} unexpected"
        )
