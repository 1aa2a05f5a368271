import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.export.card import server_rank
from routedk.adapters.export.export import export_lora, fixed_gates
from routedk.adapters.export.plain_lora import PlainLora, fold, truncate_product
from routedk.adapters.student import Student
from routedk.errors import SettingError
from tests.adapters.conftest import assert_same_scores, copy_of, randomise

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
# What vLLM's parse_fine_tuned_lora_name takes apart, for the modules that it knows.
SERVED = re.compile(
    r"base_model\.model\.model\.layers\.\d+\."
    r"(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.lora_[AB]\.weight"
)


@pytest.fixture
def routed(loaded: Student) -> RoutedStudent:
    """Weak experts: float32 then agrees to 1e-5 in logits of this size."""
    settings = ExpertSettings(r=4, lora_alpha=6, layers=2)
    return randomise(RoutedStudent(copy_of(loaded), settings, "layerwise"), scale=0.1)


def plain_logits(lora: PlainLora, student_folder: Path, folder: Path) -> torch.Tensor:
    folder.mkdir()
    lora.write(folder)
    base = AutoModelForCausalLM.from_pretrained(student_folder)
    with torch.no_grad():
        return PeftModel.from_pretrained(base, folder).eval()(input_ids=IDS).logits


def routed_logits(routed: RoutedStudent, gates: torch.Tensor) -> torch.Tensor:
    rows = gates.expand(len(IDS), *gates.shape)
    with torch.no_grad(), routed.gate_state.use(rows):
        return routed.model(input_ids=IDS).logits


@pytest.mark.parametrize(
    ("gates", "rank"),
    [([0.5, 0.3, 0.2], 12), ([0.25, 0.75, 0.0], 8), ([0.0, 1.0, 0.0], 4)],
)
def test_it_is_the_experts_under_these_gates(
    gates: list[float], rank: int, routed: RoutedStudent, student_folder: Path, tmp_path: Path
) -> None:
    lora = fold(routed, gates)
    assert (lora.rank, lora.error) == (rank, 0.0)
    assert_same_scores(
        plain_logits(lora, student_folder, tmp_path / "lora"),
        routed_logits(routed, torch.tensor(gates)),
    )


def test_a_server_finds_what_it_expects(routed: RoutedStudent, tmp_path: Path) -> None:
    folder = export_lora(routed, tmp_path / "lora", gates={"base": 0.5, "rule": 0.5})
    names = load_file(folder / "adapter_model.safetensors")
    assert len(names) == 2 * 7 * 2
    assert all(SERVED.fullmatch(name) for name in names)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] == 8
    assert config["bias"] == "none"
    assert not any(config[key] for key in ("modules_to_save", "use_dora", "use_rslora"))
    card = (folder / "README.md").read_text()
    assert "| served by vLLM | needs --max-lora-rank 8 |" in card
    assert "| fusion | gates as given |" in card
    assert "| gates | base 0.5000, rule 0.5000, thought 0.0000 |" in card
    assert "--enable-lora --max-lora-rank 8 --lora-modules bundles=." in card


@pytest.mark.parametrize(
    ("rank", "needed"), [(1, 8), (8, 8), (24, 32), (257, 320), (512, 512), (513, None)]
)
def test_the_rank_that_a_server_has_to_allow(rank: int, needed: int | None) -> None:
    assert server_rank(rank) == needed


def test_truncation_is_the_nearest_of_its_rank(
    routed: RoutedStudent, student_folder: Path, tmp_path: Path
) -> None:
    gates = [0.5, 0.3, 0.2]
    whole, cut = fold(routed, gates), fold(routed, gates, max_rank=5, truncate=True)
    assert cut.rank == 5
    lost = total = 0.0
    for name in whole.tensors:
        if "lora_A" in name:
            other = name.replace("lora_A", "lora_B")
            before = (whole.tensors[other] @ whole.tensors[name]).double()
            after = (cut.tensors[other] @ cut.tensors[name]).double()
            values = torch.linalg.svdvals(before)
            lost += float(values[5:].square().sum())
            total += float(values.square().sum())
            best = values[5:].square().sum().sqrt()
            torch.testing.assert_close((before - after).norm(), best, rtol=1e-4, atol=1e-6)
    assert cut.error == pytest.approx((lost / total) ** 0.5, rel=1e-4)
    assert 0 < cut.error < 1
    assert plain_logits(cut, student_folder, tmp_path / "cut").isfinite().all()
    same = fold(routed, gates, max_rank=12, truncate=True)
    assert same.error == 0.0
    assert all(torch.equal(same.tensors[name], whole.tensors[name]) for name in whole.tensors)
    folder = export_lora(
        routed, tmp_path / "lora", gates={"base": 0.5, "rule": 0.5}, max_rank=5, truncate=True
    )
    card = (folder / "README.md").read_text()
    assert "one LoRA of rank 5" in card
    assert re.search(r"\| truncated \| by SVD, relative Frobenius error 0\.\d+ \|", card)


def test_a_layer_narrower_than_the_rank() -> None:
    down, up = torch.randn(6, 3), torch.randn(2, 6)
    new_down, new_up, _ = truncate_product(down, up, 4)
    assert (new_down.shape, new_up.shape) == ((4, 3), (2, 4))
    torch.testing.assert_close(new_up @ new_down, up @ down)


def test_refusals(routed: RoutedStudent) -> None:
    gates = [0.5, 0.3, 0.2]
    with pytest.raises(SettingError, match="ranks sum to 12, above max_rank=8: truncate it"):
        fold(routed, gates, max_rank=8)
    with pytest.raises(SettingError, match="max_rank=0: at least 1"):
        fold(routed, gates, max_rank=0, truncate=True)
    with pytest.raises(SettingError, match="truncate: to which rank"):
        fold(routed, gates, truncate=True)
    with pytest.raises(SettingError, match="gates of rules: the experts are base, rule, thought"):
        fixed_gates(routed, {"rules": 1.0})
    for wrong in ({"base": 0.5}, {"base": 1.5, "rule": -0.5}, {"base": float("nan")}, {}):
        with pytest.raises(SettingError, match="each at least 0, summing to 1"):
            fixed_gates(routed, wrong)
