import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import make_fusion
from routedk.adapters.experts.routing_file import ROUTER_FILE, ROUTING_FILE, ExpertSettings
from routedk.adapters.student import Student
from routedk.errors import ArtifactError, SettingError
from tests.adapters.conftest import assert_same_scores, copy_of

EXPERTS = ["base", "rule", "thought"]


@pytest.fixture
def saved(routed: RoutedStudent, tmp_path: Path) -> Path:
    routed.training = {"sessions": 6}
    routed.save(tmp_path / "experts")
    return tmp_path / "experts"


def logits(routed: RoutedStudent, ids: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), routed.gate_state.use(gates):
        return routed.model(input_ids=ids).logits


@pytest.mark.parametrize("place", [0, 1, 2])
def test_plain_peft_loads_any_one_expert(
    routed: RoutedStudent, saved: Path, student_folder: Path, place: int
) -> None:
    ids = torch.randint(5, 200, (2, 9))
    base = AutoModelForCausalLM.from_pretrained(student_folder)
    plain = PeftModel.from_pretrained(base, saved / routed.adapters[place]).eval()
    with torch.no_grad():
        theirs = plain(input_ids=ids).logits
    assert_same_scores(logits(routed, ids, torch.eye(3)[[place, place]]), theirs)


def test_the_student_is_found_by_its_saved_name(routed: RoutedStudent, saved: Path) -> None:
    again = RoutedStudent.load(saved, fusion="single:rule")
    assert again.student.name == routed.student.name
    assert again.fusion_name == "single:rule"
    assert not any(p.requires_grad for p in again.model.parameters())


def test_routing_file(saved: Path, routed: RoutedStudent) -> None:
    document = json.loads((saved / ROUTING_FILE).read_text())
    assert document["schema"] == 2
    assert document["student"]["fingerprint"] == routed.student.fingerprint
    assert document["experts"] == EXPERTS
    assert document["training"] == {"sessions": 6}
    names = {path.name for path in saved.iterdir()}
    assert names == {*routed.adapters, ROUTER_FILE, ROUTING_FILE}


def _edit(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / ROUTING_FILE
        document = json.loads(path.read_text()) | changes
        kept = {key: value for key, value in document.items() if value is not Ellipsis}
        path.write_text(json.dumps(kept))

    return damage


def _cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:100])


def _lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _take_from(other: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        from safetensors.torch import save_file

        path = folder / "expert_rule" / "adapter_model.safetensors"
        tensors = load_file(path)
        first = min(tensors)
        tensors[f"{first}.{other}"] = tensors.pop(first)
        save_file(tensors, path)

    return damage


def _spoil(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({n: t * float("nan") for n, t in load_file(folder / name).items()}, folder / name)

    return damage


RULE = "expert_rule/adapter_model.safetensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_lose(ROUTING_FILE), "routing.json: no such file; is .* what `train` wrote"),
        (_cut(ROUTING_FILE), "routing.json:.* invalid JSON"),
        (lambda f: (f / ROUTING_FILE).write_text("[" * 10**5), "routing.json: invalid JSON"),
        (lambda f: (f / ROUTING_FILE).write_text("[1]"), "schema None, this version reads 2"),
        (
            _edit(schema=1),
            r"routing.json: schema 1, this version reads 2 \(train the experts again\)",
        ),
        (_edit(fusion=...), "routing.json: fusion: Field required"),
        (_edit(student="x"), "routing.json: student: "),
        (_edit(student={"name": "x"}), r"routing.json: student.fingerprint: Field required"),
        (_edit(training="x"), "routing.json: training: Input should be a valid dictionary"),
        (_edit(mean_gates=[float("nan"), 1, 0]), "routing.json: invalid JSON: .*NaN"),
        (_edit(r="8"), "routing.json: r: Input should be a valid integer"),
        (_edit(r=0), "routing.json: r=0: it must be at least 1"),
        (_edit(r=10**7), "routing.json: r=10000000: at most 32, the student's hidden size"),
        (_edit(experts=["../rule"]), r"experts \['../rule'\]: names are of lower-case letters"),
        (_edit(fusion="magic"), "routing.json: fusion 'magic': allowed are softmax, static"),
        (_edit(r=2), "expert_base.*missing or damaged: .*size mismatch"),
        (_edit(target_modules=["x"]), "routing.json: Target modules"),
        (_edit(layers=1), "expert_base.*: 0 tensors missing, 14 unexpected"),
        (_edit(layers=3), "expert_base.*: 14 tensors missing, 0 unexpected"),
        (_lose(RULE), "expert_rule/adapter_model.safetensors: missing or damaged"),
        (_cut(RULE), "expert_rule/adapter_model.safetensors: missing or damaged"),
        (_spoil(RULE), "expert_rule: .*not finite.*train again with a lower learning rate"),
        (_spoil(ROUTER_FILE), "router.safetensors has weights that are not finite"),
        (_take_from("x"), "expert_rule.*: 1 tensors missing, 1 unexpected"),
        (_lose(ROUTER_FILE), "router.safetensors: missing or damaged"),
        (_cut(ROUTER_FILE), "router.safetensors: missing or damaged"),
        (
            lambda f: shutil.copy(f / RULE, f / ROUTER_FILE),
            "router.safetensors: missing or damaged: .*[Mm]issing key",
        ),
    ],
)
def test_what_is_not_whole(
    loaded: Student, saved: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(saved)
    with pytest.raises(ArtifactError, match=message):
        RoutedStudent.load(saved, student=copy_of(loaded))


@pytest.mark.parametrize("fusion", ["static", "top1", "layerwise", "sparsegen"])
def test_a_router_that_was_not_trained_is_not_made_up(
    loaded: Student, saved: Path, fusion: str
) -> None:
    with pytest.raises(SettingError, match=f"fusion '{fusion}': .* trained with 'softmax'"):
        RoutedStudent.load(saved, fusion=fusion, student=copy_of(loaded))


def test_another_student(loaded: Student, saved: Path) -> None:
    other = replace(loaded, fingerprint="0123")
    with pytest.raises(ArtifactError, match="has fingerprint 0123; experts fit the weights"):
        RoutedStudent.load(saved, student=other)


def test_nothing_is_overwritten(routed: RoutedStudent, saved: Path) -> None:
    for place in (saved, saved / ROUTER_FILE):
        with pytest.raises(ArtifactError, match="exists already: name another folder"):
            routed.save(place)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"experts": ()}, "give at least one"),
        ({"experts": ("base", "base")}, "no name twice"),
        ({"experts": ("a.b",)}, "lower-case letters, digits and _"),
        ({"r": 0}, "r=0"),
        ({"lora_alpha": 0}, "lora_alpha=0"),
        ({"layers": 0}, "layers=0: it must be at least 1"),
    ],
)
def test_expert_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ExpertSettings(**values)


@pytest.mark.parametrize("name", ["", "mean", "single:", "single:nobody", "uniform:x"])
def test_unknown_fusion(name: str) -> None:
    allowed = "allowed are softmax, .*uniform, merged, single:base, single:rule, single:thought"
    with pytest.raises(SettingError, match=f"fusion '{name}': {allowed}"):
        make_fusion(name, EXPERTS, 32)


def test_fingerprint_tells_shapes_apart(loaded: Student) -> None:
    marks = set()
    for alpha in (8, 16):
        torch.manual_seed(0)
        settings = ExpertSettings(r=4, lora_alpha=alpha, layers=1)
        marks.add(RoutedStudent(copy_of(loaded), settings).fingerprint())
    assert len(marks) == 2
