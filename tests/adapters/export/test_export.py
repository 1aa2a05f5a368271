import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.export.export import ExportConfig, export, export_lora, export_model
from routedk.adapters.student import Student
from routedk.errors import ArtifactError, DataError, SettingError
from tests.adapters.conftest import assert_same_scores, copy_of, randomise

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
FIXED = {"uniform": 12, "static": 12, "merged": 8, "single:rule": 4}


def build(fusion: str, student: Student) -> RoutedStudent:
    settings = ExpertSettings(r=4, lora_alpha=6, layers=2)
    return randomise(RoutedStudent(copy_of(student), settings, fusion, [0.7, 0.0, 0.3]))


def logits(routed: RoutedStudent) -> torch.Tensor:
    pooled = torch.zeros(len(IDS), routed.student.model.config.hidden_size)
    with torch.no_grad(), routed.gate_state.use(routed.fusion(pooled)):
        return routed.model(input_ids=IDS).logits


@pytest.mark.parametrize(("fusion", "rank"), FIXED.items())
def test_a_plain_lora_is_the_fused_experts(
    fusion: str, rank: int, loaded: Student, student_folder: Path, tmp_path: Path
) -> None:
    routed = build(fusion, loaded)
    folder = export_lora(routed, tmp_path / "lora", {"data": "demo | all"})
    base = AutoModelForCausalLM.from_pretrained(student_folder)
    plain = PeftModel.from_pretrained(base, folder).eval()
    assert plain.peft_config["default"].r == rank
    assert plain.peft_config["default"].base_model_name_or_path == loaded.name
    assert plain.peft_config["default"].modules_to_save is None
    with torch.no_grad():
        assert_same_scores(plain(input_ids=IDS).logits, logits(routed))
    card = (folder / "README.md").read_text()
    assert f"| fusion | {fusion} |" in card
    assert f"one LoRA of rank {rank}" in card
    assert str(student_folder) not in card
    assert r"| data | demo \| all |" in card


def test_full_weights_are_the_fused_experts(loaded: Student, tmp_path: Path) -> None:
    routed = build("merged", loaded)
    folder = export_model(routed, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert_same_scores(plain(input_ids=IDS).logits, logits(routed))
    assert AutoTokenizer.from_pretrained(folder).chat_template == loaded.tokenizer.chat_template
    assert "full weights" in (folder / "README.md").read_text()


@pytest.mark.parametrize("fusion", ["softmax", "top1", "layerwise", "sparsegen"])
def test_gates_of_a_session_fit_no_lora(fusion: str, loaded: Student, tmp_path: Path) -> None:
    for write in (export_lora, export_model):
        with pytest.raises(SettingError, match=f"fusion '{fusion}' has gates of its own"):
            write(build(fusion, loaded), tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_nothing_is_overwritten(loaded: Student, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ArtifactError, match="exists already: name another folder"):
            export_lora(build("uniform", loaded), folder)


def test_gates_of_ones_own_and_results_on_the_card(loaded: Student, tmp_path: Path) -> None:
    build("softmax", loaded).save(tmp_path / "experts", {"answer_form": "bundles"})
    results = {
        "config": {"data": "some/where/demo", "split": "test"},
        "counts": {"sessions": 7},
        "results": {"matched": {"f1": {"value": 0.5, "low": 0.4, "high": 0.6}}},
    }
    (tmp_path / "result.json").write_text(json.dumps(results))
    config = ExportConfig(gates="base=.75,rule=.25", max_rank=4, results=tmp_path / "result.json")
    with pytest.raises(SettingError, match="ranks sum to 8, above max_rank=4: truncate it"):
        export(tmp_path / "experts", tmp_path / "lora", config)
    folder = export(tmp_path / "experts", tmp_path / "lora", replace(config, truncate=True))
    assert (folder / "adapter_model.safetensors").is_file()
    card = (folder / "README.md").read_text()
    assert "| gates | base 0.7500, rule 0.2500, thought 0.0000 |" in card
    assert "| evaluated on | demo, split test, 7 sessions |" in card
    assert "| matched F1 | 0.500 (95% 0.400 to 0.600) |" in card
    assert "| answer form | bundles |" in card
    assert "writes one line per bundle" in card
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="no results of predictions"):
        export(tmp_path / "experts", tmp_path / "b", ExportConfig(results=tmp_path / "other.json"))


def test_the_routers_mean_gates_unless_told_otherwise(loaded: Student, tmp_path: Path) -> None:
    build("softmax", loaded).save(tmp_path / "experts")
    export(tmp_path / "experts", tmp_path / "model", ExportConfig(full=True))
    assert "| fusion | merged |" in (tmp_path / "model" / "README.md").read_text()
    export(tmp_path / "experts", tmp_path / "rule", ExportConfig(fusion="single:rule"))
    assert "| fusion | single:rule |" in (tmp_path / "rule" / "README.md").read_text()
    with pytest.raises(ArtifactError, match="exists already"):
        export(tmp_path / "experts", tmp_path / "rule")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gates": "base"}, "'base' is no NAME=SHARE"),
        ({"gates": "base=.5,base=.5"}, "'base=.5' is no NAME=SHARE of its own"),
        ({"gates": "base=-1"}, "'base=-1' is no NAME=SHARE"),
        ({"gates": "base=1", "fusion": "uniform"}, "give fusion or gates, not both"),
        ({"full": True, "max_rank": 8}, "full weights have no rank"),
        ({"full": True, "truncate": True}, "full weights have no rank"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ExportConfig(**values)
