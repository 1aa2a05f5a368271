"""Two processes under ``accelerate launch`` against one with twice the batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from routedk.adapters.training.processes import for_averaging, is_main, place, shared_mean
from routedk.data.knowledge_file import write_knowledge
from routedk.data.native import write_jsonl
from routedk.types import KnowledgeBase, Session

from . import train_worker

LAUNCH = "accelerate.commands.launch"
OPTIONS = ("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0")
PLAIN = ("--mixed_precision", "no", "--dynamo_backend", "no")


def curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_two_processes_are_one_with_twice_the_batch(
    student_folder: Path, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    folders = tmp_path / "two", tmp_path / "one"
    for folder in folders:
        folder.mkdir()
        write_jsonl(folder / "sessions.jsonl", sessions[:5])
        write_knowledge(knowledge, folder / "knowledge.jsonl")
    worker = (str(Path(train_worker.__file__)), str(student_folder), str(folders[0]), "1")
    command = [sys.executable, "-m", LAUNCH, *OPTIONS, *PLAIN, *worker]
    known = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        command,
        env=known | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folders[0] / "processes.json").read_text()) == 2
    train_worker.train_all(str(student_folder), folders[1], 2)
    for name in train_worker.CONFIGS:
        two, one = (folder / name for folder in folders)
        ours, theirs = curve(two), curve(one)
        assert [(r["stage"], r["step"], r["tokens"]) for r in ours] == [
            (r["stage"], r["step"], r["tokens"]) for r in theirs
        ]
        assert {r["stage"] for r in ours} == {"base", "rule", "thought", "router"}
        for record, other in zip(ours, theirs, strict=True):
            assert record["loss"] == pytest.approx(other["loss"], rel=1e-5, abs=1e-5)
        mine, other_weights = weights(two), weights(one)
        assert mine.keys() == other_weights.keys()
        for key, tensor in mine.items():
            torch.testing.assert_close(tensor, other_weights[key], rtol=1e-4, atol=1e-4)
        assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    for folder in folders:
        assert not list((folder / "store" / "work").iterdir())


def test_alone() -> None:
    assert place() == (0, 1)
    assert is_main()
    values = torch.tensor([1.0, 4.0], requires_grad=True)
    loss = for_averaging(shared_mean(values))
    loss.backward()
    assert (loss.item(), values.grad.tolist()) == (2.5, [0.5, 0.5])  # type: ignore[union-attr]
    assert shared_mean(torch.zeros(0)).item() == 0
