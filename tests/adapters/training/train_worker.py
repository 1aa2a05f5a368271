"""What each process of `test_processes.py` runs under ``accelerate launch``."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.train import TrainConfig, train
from routedk.adapters.training import fit, processes, rows, run
from routedk.artifacts import copy_artifact
from routedk.data import DataOptions, load_sessions
from routedk.data.knowledge_file import read_knowledge

CONFIG = TrainConfig(
    r=4,
    lora_alpha=8,
    layers=2,
    epochs=1,
    learning_rate=1e-2,
    knowledge_share=1.0,
    knowledge_epochs=1,
    router_epochs=1,
    save_steps=2,
    bf16=False,
    seed=3,
)
CONFIGS = {
    # 15 rows, of which 9 train the router: no epoch is a whole number of batches.
    "answer": replace(CONFIG, router_share=0.6),
    "supervised": replace(CONFIG, fusion="layerwise", router_training="supervised"),
}


def train_all(student: str, folder: Path, batch_size: int) -> None:
    """Train once for each way to train a router; every run's result is in a folder of its name."""
    sessions = load_sessions(str(folder / "sessions.jsonl"), DataOptions(seed=0))
    knowledge = read_knowledge(folder / "knowledge.jsonl")
    for name, config in CONFIGS.items():
        chosen = replace(config, student=student, batch_size=batch_size)
        made = train(sessions, knowledge, chosen, store=folder / "store")
        if processes.is_main():
            copy_artifact(made, folder / name)


def _refuse(*arguments: Any, **more: Any) -> NoReturn:
    raise AssertionError("another process than the main one writes a file")


def main() -> None:
    student, folder, batch_size = sys.argv[1:]
    processes.join()
    if not processes.is_main():
        for module in (fit, rows, run):
            module.save_file = _refuse
        RoutedStudent.save_experts = _refuse  # type: ignore[method-assign]
        run.write_jsonl_records = run.plot_losses = fit.write_json = _refuse
    train_all(student, Path(folder), int(batch_size))
    number, count = processes.place()
    if number == 0:
        (Path(folder) / "processes.json").write_text(json.dumps(count))


if __name__ == "__main__":
    main()
