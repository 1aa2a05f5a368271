"""What each process of `test_processes.py` runs under ``accelerate launch``."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.student import load_student
from routedk.adapters.training import fit as fit_module
from routedk.adapters.training import processes, trainer
from routedk.adapters.training import stages as training
from routedk.adapters.training.fit import FitSettings, fit
from routedk.adapters.training.router_training import RouterTraining
from routedk.adapters.training.stages import TrainingSettings
from routedk.data import DataOptions, load_sessions
from routedk.data.knowledge_file import read_knowledge

STAGE = TrainingSettings(epochs=1, learning_rate=1e-2, save_steps=2, warmup_steps=1, bf16=False)
ROUTERS = {
    # 15 rows, of which 9 train the router: no epoch is a whole number of batches.
    "answer": ("softmax", RouterTraining(balance=0.5, sparsity=0.1), replace(STAGE, share=0.6)),
    "joint": (
        "sparsegen",
        RouterTraining(method="joint", balance=0.5, sparsity=0.1, most_experts=1),
        replace(STAGE, share=0.2),
    ),
    "supervised": ("layerwise", RouterTraining(method="supervised"), replace(STAGE, epochs=2)),
}


def run(student: str, folder: Path, batch_size: int) -> None:
    """Train once for each way to train a router; every run's result is in a folder of its name."""
    sessions = load_sessions(str(folder / "sessions.jsonl"), DataOptions(seed=0))
    knowledge = read_knowledge(folder / "knowledge.jsonl")
    for name, (fusion, how, router) in ROUTERS.items():
        few = sessions if name == "answer" else sessions[:2]
        settings = FitSettings(
            experts=ExpertSettings(r=4, lora_alpha=8, layers=2),
            base=replace(STAGE, batch_size=batch_size),
            knowledge=replace(STAGE, batch_size=batch_size),
            router=replace(router, batch_size=batch_size),
            fusion=fusion,
            router_training=how,
            seed=3,
        )
        fit(load_student(student, device="cpu"), few, knowledge, folder / name, settings)


def _refuse(*arguments: Any, **more: Any) -> NoReturn:
    raise AssertionError("another process than the main one writes a file")


def main() -> None:
    student, folder, batch_size = sys.argv[1:]
    processes.join()
    if not processes.is_main():
        for module in (trainer, training):
            module.save_file = _refuse
        RoutedStudent.save = _refuse  # type: ignore[method-assign]
        fit_module.write_jsonl_records = fit_module.plot_losses = _refuse
    run(student, Path(folder), int(batch_size))
    number, count = processes.place()
    if number == 0:
        (Path(folder) / "processes.json").write_text(json.dumps(count))


if __name__ == "__main__":
    main()
