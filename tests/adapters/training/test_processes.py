"""``routedk train`` as ``accelerate launch`` runs it: the command itself, in two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from routedk.adapters.training.processes import for_averaging, is_main, place, shared_mean
from routedk.cli import main

LAUNCH = (
    "accelerate.commands.launch",
    *("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
)


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of an experts folder, by file and name."""
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


@pytest.mark.parametrize(
    "router",
    [("--fusion", "softmax"), ("--fusion", "layerwise", "--router-training", "supervised")],
)
def test_two_processes_do_what_one_does_and_say_it_once(
    router: tuple[str, ...],
    student_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    run = ("train", "--student", str(student_folder), "--data", "demo", "--max-sessions", "5")
    run = (*run, "--layers", "2", "--r", "4", "--epochs", "1", "--knowledge-epochs", "1")
    run = (*run, "--router-epochs", "1", "--knowledge", str(tmp_path / "made" / "knowledge.jsonl"))
    run = (*run, *router, "--router-share", "0.6", "--knowledge-share", "1", "--no-bf16")
    with pytest.raises(SystemExit):
        main(["distill", "--data", "demo", "--output", str(tmp_path / "made")])
    with pytest.raises(SystemExit) as caught:
        main([*run, "--batch-size", "4", "--output", str(tmp_path / "one")])
    assert not caught.value.code
    said_by_one = capsys.readouterr().out
    known = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    options = ("--batch-size", "2", "--output", str(tmp_path / "two"))
    done = subprocess.run(
        [sys.executable, "-m", *LAUNCH, "-m", "routedk", *run, *options],
        env=known | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two, one = tmp_path / "two", tmp_path / "one"
    ours, theirs = (
        [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
        for folder in (two, one)
    )
    assert {record["stage"] for record in ours} == {"base", "rule", "thought", "router"}
    for record, other in zip(ours, theirs, strict=True):
        assert record == other | {"loss": pytest.approx(other["loss"], rel=1e-5, abs=1e-5)}
    mine, others = weights(two), weights(one)
    assert mine.keys() == others.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-4, atol=1e-4)
    files = [sorted(path.relative_to(f) for path in f.rglob("*")) for f in (two, one)]
    assert files[0] == files[1]
    assert "{'loss'" not in done.stdout
    assert done.stdout.count("tokens seen") == said_by_one.count("tokens seen") == 1
    assert done.stderr.count("Loading weights:   0%") <= 1


@pytest.mark.parametrize(("rank", "waits"), [(None, []), ("0", []), ("1", [15.0])])
def test_another_process_lets_the_first_say_what_is_wrong(
    rank: str | None,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The launcher ends it meanwhile; where it does not, the error was this process's alone."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as caught:
        main(["data", "describe", "nowhere.jsonl"])
    assert (caught.value.code, slept) == (2, waits)
    assert capsys.readouterr().err.count("error: nowhere.jsonl: ") == 1


def test_alone() -> None:
    assert place() == (0, 1)
    assert is_main()
    values = torch.tensor([1.0, 4.0], requires_grad=True)
    loss = for_averaging(shared_mean(values))
    loss.backward()
    assert (loss.item(), values.grad.tolist()) == (2.5, [0.5, 0.5])  # type: ignore[union-attr]
    assert shared_mean(torch.zeros(0)).item() == 0
