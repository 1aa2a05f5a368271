"""`train`: what is made, what is made again, and what a killed run resumes from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ROUTER_FILE
from routedk.adapters.student import Student
from routedk.adapters.train import TrainConfig, train
from routedk.adapters.training.trainer import RoutedTrainer
from routedk.artifacts import ArtifactStore
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.types import KnowledgeBase, Session
from tests.adapters.conftest import SMALL

STEPS = {"base": 12, "rule": 6, "thought": 6, "router": 4}
FILES = {"router.safetensors", "routing.json", "loss.jsonl", "loss.png", "manifest.json"}


@pytest.fixture(scope="module")
def config(student_folder: Path) -> TrainConfig:
    return replace(
        SMALL,
        student=str(student_folder),
        knowledge_epochs=2,
        router_share=0.4,
        save_steps=3,
        seed=3,
    )


@pytest.fixture
def quick(config: TrainConfig) -> TrainConfig:
    return replace(config, epochs=1, knowledge_epochs=1, router_share=0.1, batch_size=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def finished(
    config: TrainConfig, sessions: list[Session], knowledge: KnowledgeBase, store: ArtifactStore
) -> Path:
    """A whole run without any interruption."""
    return train(sessions, knowledge, config, store=store)


def document(folder: Path) -> Any:
    return json.loads((folder / "routing.json").read_text())


def curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in [*folder.glob("expert_*/adapter_model.safetensors"), folder / ROUTER_FILE]:
        tensors = load_file(path)
        found |= {f"{path.relative_to(folder)}:{name}": t for name, t in tensors.items()}
    return found


def made(store: ArtifactStore) -> dict[str, int]:
    return {
        folder.name: len(list(folder.iterdir()))
        for folder in (store.root / "artifacts").iterdir()
        if folder.name != "knowledge"
    }


def test_what_is_written(finished: Path, store: ArtifactStore, student_folder: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        *FILES,
        *(f"expert_{name}" for name in ("base", "rule", "thought")),
    }
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    records = curve(finished)
    assert {name: sum(r["stage"] == name for r in records) for name in STEPS} == STEPS
    training = document(finished)["training"]
    assert training["sessions"] == 6
    assert training["answer_form"] == "item-intents"
    assert training["settings"]["seed"] == 3
    assert training["settings"]["student"] == str(student_folder)
    assert training["tokens"] == {record["stage"]: record["tokens"] for record in records}
    assert made(store)["expert"] >= 3
    assert not list((store.root / "work").iterdir())


def test_training_lowers_the_loss(finished: Path) -> None:
    losses = [record["loss"] for record in curve(finished) if record["stage"] == "base"]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_what_is_the_same_is_not_made_again(
    finished: Path,
    config: TrainConfig,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = made(store)
    with monkeypatch.context() as patched:
        patched.setattr(RoutedTrainer, "train", None)
        assert train(sessions, knowledge, config, store=store.root) == finished
        # Experts are found, their names and the router's input apart from them; merged is of the
        # same router, uniform of none.
        for fusion in ("merged", "uniform", "single:rule"):
            other = replace(config, fusion=fusion, expert_names=("base", "rule", "thought"))
            folder = train(sessions, knowledge, other, store=store)
            assert document(folder)["fusion"] == fusion
    found = RoutedStudent.load(finished, fusion="merged")
    merged = RoutedStudent.load(
        train(sessions, knowledge, replace(config, fusion="merged"), store=store)
    )
    assert torch.equal(merged.fusion(torch.zeros(1, 1)), found.fusion(torch.zeros(1, 1)))
    assert made(store) == {**before, "experts": before["experts"] + 3}
    # Other rules make another rule expert and another router, and no other base expert.
    fewer = replace(knowledge, rules=knowledge.rules[:1])
    train(sessions, fewer, config, store=store)
    after = made(store)
    assert after["expert"] == before["expert"] + 1
    assert after["router"] == before["router"] + 1


def test_a_router_over_trained_experts(
    finished: Path,
    config: TrainConfig,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    store: ArtifactStore,
) -> None:
    again = replace(config, experts=str(finished), fusion="layerwise", router_input="prompt", r=8)
    folder = train(sessions, knowledge, again, store=store)
    mine, theirs = weights(folder), weights(finished)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs if "expert_" in name)
    assert {record["stage"] for record in curve(folder)} == {"router"}
    routed = RoutedStudent.load(folder)
    assert (routed.fusion_name, routed.settings.router_input) == ("layerwise", "prompt")
    assert routed.settings.r == 4
    (store.root / "elsewhere").mkdir()
    with pytest.raises(ArtifactError, match=r"routing.json: no such file"):
        train(sessions, knowledge, replace(again, experts=store.root / "elsewhere"), store=store)


def test_experts_of_another_student(
    finished: Path,
    config: TrainConfig,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    student: Student,
    tmp_path: Path,
) -> None:
    other = replace(config, experts=finished, student=str(tmp_path / "other"))
    with torch.no_grad():
        student.model.model.norm.weight += 1
    student.model.save_pretrained(tmp_path / "other")
    student.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ArtifactError, match=r"trained on a student with fingerprint .*, but"):
        train(sessions, knowledge, other, store=tmp_path / "store")


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


@pytest.mark.parametrize("method", ["answer", "supervised"])
def test_a_killed_run_resumed_equals_an_uninterrupted_one(
    method: Any,
    config: TrainConfig,
    kill_at: Callable[[int], None],
    sessions: list[Session],
    knowledge: KnowledgeBase,
    store: ArtifactStore,
    tmp_path: Path,
) -> None:
    config = replace(config, router_training=method, batch_size=2, router_epochs=8)
    whole = train(sessions, knowledge, config, store=store)
    # In step 8 of base (its checkpoint is of step 6); on to step 2 of rule (no checkpoint yet);
    # its steps 1 to 5; on to the end of it, thought and step 5 of router.
    for steps in (8, 6 + 2, 5, 3 + 6 + 5):
        kill_at(steps)
        with pytest.raises(Killed):
            train(sessions, knowledge, config, store=tmp_path)
    kill_at(0)
    torch.manual_seed(99)  # The config's seed alone decides.
    resumed = train(sessions, knowledge, config, store=tmp_path)
    ours, theirs = weights(resumed), weights(whole)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)
    assert len(curve(resumed)) == len(curve(whole))
    for mine, other in zip(curve(resumed), curve(whole), strict=True):
        assert mine == other | {"loss": pytest.approx(other["loss"], rel=1e-4)}
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("fusion", ["static", "top1", "sparsegen"])
def test_every_fusion_is_trained_alike(
    fusion: str,
    quick: TrainConfig,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    store: ArtifactStore,
) -> None:
    folder = train(sessions, knowledge, replace(quick, fusion=fusion), store=store)
    routed = RoutedStudent.load(folder)
    assert routed.fusion_name == fusion
    assert any(bool(p.any()) for p in routed.fusion.parameters())
    assert (routed.mean_gates is None) == (fusion == "sparsegen")
    if fusion == "static":
        merged = RoutedStudent.load(folder, fusion="merged")
        pooled = torch.zeros(1, 32)
        torch.testing.assert_close(merged.fusion(pooled), routed.fusion(pooled))


def test_experts_that_write_bundles(
    quick: TrainConfig, sessions: list[Session], knowledge: KnowledgeBase, store: ArtifactStore
) -> None:
    config = replace(quick, answer_form="bundles", utilization="SFT", knowledge_epochs=12)
    folder = train(sessions, knowledge, config, store=store)
    training = document(folder)["training"]
    assert (training["answer_form"], training["utilization"]) == ("bundles", "SFT")
    losses = [record["loss"] for record in curve(folder) if record["stage"] == "thought"]
    assert losses[-1] < losses[0]


def test_the_gold_is_learnt_whatever_was_distilled(
    quick: TrainConfig, sessions: list[Session], knowledge: KnowledgeBase, store: ArtifactStore
) -> None:
    """Rows of base and rule expert are of all sessions, neighbours are those distilled from."""
    fewer = replace(knowledge, thoughts=knowledge.thoughts[:2])
    folder = train(sessions, fewer, replace(quick, fusion="uniform"), store=store)
    assert document(folder)["training"]["sessions"] == len(sessions)
    none = replace(knowledge, thoughts=())
    with pytest.raises(SettingError, match="no training session has a thought: distill"):
        train(sessions, none, quick, store=store)
    two = replace(quick, expert_names=("base", "rule"))
    assert document(train(sessions, none, two, store=store))["experts"] == ["base", "rule"]


def test_one_expert_alone(
    quick: TrainConfig, sessions: list[Session], knowledge: KnowledgeBase, store: ArtifactStore
) -> None:
    only = replace(quick, expert_names=("base",), layers=0, max_sessions=2)
    folder = train(sessions, knowledge, only, store=store)
    assert document(folder)["fusion"] == "single:base"
    assert document(folder)["training"]["sessions"] == 2
    assert {record["stage"] for record in curve(folder)} == {"base"}
    with torch.no_grad():
        assert RoutedStudent.load(folder).first_layer == 0


def test_nothing_to_learn_from(
    quick: TrainConfig, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    bare = [replace(session, bundles=None) for session in sessions]
    with pytest.raises(DataError, match="training sessions has a bundle"):
        train(bare, knowledge, quick, store=tmp_path)
