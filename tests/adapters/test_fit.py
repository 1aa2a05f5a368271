import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from routedk.adapters.engine.engine import student_lm
from routedk.adapters.experts.routed import ROUTER_FILE, ExpertSettings, RoutedStudent
from routedk.adapters.student import Student
from routedk.adapters.training.fit import FitSettings, fit
from routedk.adapters.training.stages import (
    RoutedTrainer,
    TrainingSettings,
)
from routedk.errors import ArtifactError, SettingError
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.prompting.answers import read_answer
from routedk.types import KnowledgeBase, Session

from .conftest import LAYERS, assert_same_scores, copy_of

STAGE = TrainingSettings(
    epochs=4, learning_rate=3e-2, batch_size=2, save_steps=3, warmup_steps=1, bf16=False
)
SETTINGS = FitSettings(
    experts=ExpertSettings(r=4, lora_alpha=8, layers=2),
    base=STAGE,
    knowledge=replace(STAGE, epochs=2),
    router=replace(STAGE, epochs=1, share=0.4),
    seed=3,
)
STEPS = {"base": 12, "knowledge": 12, "router": 4}


def everything(student: Student) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in student.model.state_dict().items()}


def test_settings_are_checked() -> None:
    with pytest.raises(SettingError, match="answer form 'prose': allowed are item-intents"):
        FitSettings(answer_form="prose")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="utilization 'ICL' has nothing to train"):
        FitSettings(utilization="ICL")


def trained(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in [*folder.glob("expert_*/adapter_model.safetensors"), folder / ROUTER_FILE]:
        tensors = load_file(path)
        found |= {f"{path.relative_to(folder)}:{name}": t for name, t in tensors.items()}
    return found


def curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(
    loaded: Student,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, RoutedStudent]:
    """A whole run without any interruption."""
    folder = tmp_path_factory.mktemp("fit") / "experts"
    return folder, fit(copy_of(loaded), sessions, knowledge, folder, SETTINGS)


def test_what_is_written(finished: tuple[Path, RoutedStudent]) -> None:
    folder, routed = finished
    names = {path.name for path in folder.iterdir()}
    files = {"router.safetensors", "routing.json", "loss.jsonl", "loss.png"}
    assert names == {*routed.adapters, *files}
    assert [path.name for path in folder.parent.iterdir()] == ["experts"]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    records = curve(folder)
    assert {name: sum(r["stage"] == name for r in records) for name in STEPS} == STEPS
    training = json.loads((folder / "routing.json").read_text())["training"]
    assert training["sessions"] == 6
    assert training["answer_form"] == "item-intents"
    assert training["settings"]["seed"] == 3
    last = {record["stage"]: record["tokens"] for record in records}
    assert training["tokens"] == last


def test_a_router_over_trained_experts(
    finished: tuple[Path, RoutedStudent],
    loaded: Student,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    tmp_path: Path,
) -> None:
    given, folder = finished[0], tmp_path / "experts"
    shape = replace(SETTINGS.experts, router_input="prompt")
    settings = replace(SETTINGS, experts=shape, fusion="layerwise")
    routed = fit(copy_of(loaded), sessions, knowledge, folder, settings, experts=given)
    mine, theirs = trained(folder), trained(given)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs if "expert_" in name)
    assert (routed.fusion_name, routed.settings.router_input) == ("layerwise", "prompt")
    assert {record["stage"] for record in curve(folder)} == {"router"}
    written = json.loads((folder / "routing.json").read_text())["training"]
    assert written["experts"] == json.loads((given / "routing.json").read_text())["training"]
    again = RoutedStudent.load(folder, student=copy_of(loaded))
    assert again.fingerprint() == routed.fingerprint()


def test_a_router_that_cannot_be_trained_over_them(
    finished: tuple[Path, RoutedStudent],
    loaded: Student,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    tmp_path: Path,
) -> None:
    def refused(settings: FitSettings, match: str) -> None:
        with pytest.raises(SettingError, match=match):
            fit(copy_of(loaded), sessions, knowledge, tmp_path / "e", settings, experts=finished[0])

    refused(replace(SETTINGS, fusion="uniform"), "fusion 'uniform' has no router to train")
    shape = replace(SETTINGS.experts, r=2)
    refused(replace(SETTINGS, experts=shape), "experts of the shape .*r=4.*asked for .*r=2")


def test_experts_that_write_bundles(
    loaded: Student, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    folder = tmp_path / "experts"
    settings = replace(
        SETTINGS, knowledge=replace(STAGE, epochs=16), answer_form="bundles", utilization="SFT"
    )
    fit(copy_of(loaded), sessions, knowledge, folder, settings)
    training = json.loads((folder / "routing.json").read_text())["training"]
    assert (training["answer_form"], training["utilization"]) == ("bundles", "SFT")
    losses = [record["loss"] for record in curve(folder) if record["stage"] == "knowledge"]
    assert losses[-1] < losses[0]
    first = {}
    for fusion in ("softmax", "single:thought", "single:base"):
        lm = student_lm(folder, fusion=fusion)
        with dspy.context(lm=lm):
            answers = generate_all(BundleGenerator(), sessions)
        lm.engine.close()
        first[fusion] = [answer.raw.startswith("Thought: ") for answer in answers]
        for answer, session in zip(answers, sessions, strict=True):
            assert answer.error is None
            assert read_answer(answer.raw, session).dropped == ()
    assert any(first["single:thought"])
    assert not any(first["single:base"])


def test_training_lowers_the_loss(finished: tuple[Path, RoutedStudent]) -> None:
    losses = [record["loss"] for record in curve(finished[0]) if record["stage"] == "base"]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_experts_load_as_plain_peft(
    finished: tuple[Path, RoutedStudent], student_folder: Path
) -> None:
    folder, routed = finished
    ids = torch.randint(5, 200, (1, 9))
    seen = []
    for place, adapter in enumerate(routed.adapters):
        base = AutoModelForCausalLM.from_pretrained(student_folder)
        plain = PeftModel.from_pretrained(base, folder / adapter).eval()
        with torch.no_grad(), routed.gate_state.use(torch.eye(3)[[place]]):
            seen.append(plain(input_ids=ids).logits)
            assert_same_scores(routed.model(input_ids=ids).logits, seen[-1])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_the_student_is_as_before(loaded: Student, finished: tuple[Path, RoutedStudent]) -> None:
    model = finished[1].student.model
    assert "forward" not in model.__dict__
    assert len(model.model.layers) == LAYERS
    assert not hasattr(finished[1].model, "router")
    assert not any(p.requires_grad for p in finished[1].model.parameters())
    after = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in model.state_dict().items()
        if "lora_" not in name
    }
    before = everything(loaded)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def same(folder: Path, other: Path) -> None:
    ours, theirs = trained(folder), trained(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)


class Killed(Exception):
    pass


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the run die at its n-th step from now."""
    whole, left = RoutedTrainer.compute_loss, [0]

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(RoutedTrainer, "compute_loss", compute_loss)

    def arm(steps: int) -> None:
        left[0] = steps

    return arm


def test_a_killed_run_resumed_equals_an_uninterrupted_one(
    finished: tuple[Path, RoutedStudent],
    kill_at: Callable[[int], None],
    loaded: Student,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    tmp_path: Path,
) -> None:
    # Steps 1 to 7 of base (checkpoint at 6); on to step 1 of knowledge (no checkpoint yet);
    # its steps 1 to 8 (checkpoint at 6); on to the end of it and step 4 of router.
    for steps in (8, 6 + 2, 9, 6 + 4):
        student = copy_of(loaded)
        kill_at(steps)
        with pytest.raises(Killed):
            fit(student, sessions, knowledge, tmp_path / "experts", SETTINGS)
        assert "forward" not in student.model.__dict__
        assert len(student.model.model.layers) == LAYERS
        assert not (tmp_path / "experts").exists()
    kill_at(0)
    torch.manual_seed(99)  # The settings' seed alone decides.
    fit(copy_of(loaded), sessions, knowledge, tmp_path / "experts", SETTINGS)
    same(tmp_path / "experts", finished[0])
    kinds = ("stage", "step", "tokens")
    ours, theirs = curve(tmp_path / "experts"), curve(finished[0])
    assert [[r[k] for k in kinds] for r in ours] == [[r[k] for k in kinds] for r in theirs]


def test_other_settings_do_not_resume(
    kill_at: Callable[[int], None],
    loaded: Student,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    tmp_path: Path,
) -> None:
    kill_at(8)
    with pytest.raises(Killed):
        fit(copy_of(loaded), sessions, knowledge, tmp_path / "e", SETTINGS)
    kill_at(1)
    with pytest.raises(Killed):
        fit(copy_of(loaded), sessions, knowledge, tmp_path / "e", replace(SETTINGS, seed=4))
    assert len(list((tmp_path / ".e.work").iterdir())) == 2


@pytest.mark.parametrize("fusion", ["static", "layerwise", "sparsegen", "uniform"])
def test_every_fusion_is_trained_alike(
    fusion: str,
    loaded: Student,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    tmp_path: Path,
) -> None:
    once = replace(STAGE, epochs=1)
    settings = replace(SETTINGS, base=once, knowledge=once, router=once, fusion=fusion)
    routed = fit(copy_of(loaded), sessions, knowledge, tmp_path / "experts", settings)
    stages = {record["stage"] for record in curve(tmp_path / "experts")}
    assert ("router" in stages) == (fusion != "uniform")
    assert any(bool(p.any()) for p in routed.fusion.parameters()) == (fusion != "uniform")
    again = RoutedStudent.load(tmp_path / "experts", student=copy_of(loaded))
    assert again.fingerprint() == routed.fingerprint()
    if fusion != "static":
        assert routed.mean_gates is None
        return
    merged = RoutedStudent.load(tmp_path / "experts", fusion="merged", student=copy_of(loaded))
    pooled = torch.zeros(1, routed.student.model.config.hidden_size)
    torch.testing.assert_close(merged.fusion(pooled), routed.fusion(pooled))


def test_base_comes_first(
    student: Student, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    settings = FitSettings(experts=ExpertSettings(experts=("rule", "base")))
    with pytest.raises(SettingError, match="the first must be base"):
        fit(student, sessions, knowledge, tmp_path / "e", settings)


def test_without_thoughts(student: Student, sessions: list[Session], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no training session has a thought: distil"):
        fit(student, sessions, KnowledgeBase(), tmp_path / "e", SETTINGS)


def test_a_folder_of_something_else(
    student: Student, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="holds something else than experts"):
        fit(student, sessions, knowledge, tmp_path, SETTINGS)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_one_expert_alone(
    student: Student, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    only = replace(SETTINGS, experts=replace(SETTINGS.experts, experts=("base",), layers=None))
    routed = fit(student, sessions[:2], knowledge, tmp_path / "e", only)
    assert routed.adapters == ("expert_base",)
    assert {record["stage"] for record in curve(tmp_path / "e")} == {"base"}
