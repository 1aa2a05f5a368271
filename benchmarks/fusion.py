"""What routing costs: our fusions compared with the student alone and one LoRA.

python -m benchmarks.fusion --json fusion.json

Every system has the same three random experts on the same layers (`base` none, `lora` one). All
are timed in one process, taking turns, and a ratio is the median of the ratios of all rounds.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from types import MappingProxyType
from typing import Annotated, Any

import torch
import typer
from peft import PeftModel
from torch import Tensor

from benchmarks.command import run_command
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import FUSIONS
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.export.export import export_experts
from routedk.adapters.student import DEFAULT_STUDENT, Student, load_student
from routedk.files import write_json

PROMPT_TOKENS, NEW_TOKENS, TRAINED_TOKENS = 512, 32, 256
RATIOS = {
    "softmax_vs_lora": ("softmax", "lora", ("prefill", "decode", "decode_16", "train")),
    "merged_vs_base": ("merged", "base", ("decode", "decode_16")),
}
OURS = (*FUSIONS, "single:base")
Times = Mapping[str, Mapping[str, list[float]]]


@dataclass
class System:
    """One way to run the student.

    Args:
        name: Name in the table.
        model: A causal LM.
        gated: Returns the context in which a forward pass on these ids runs.
        train: Makes it trainable; None if there is nothing to train.
    """

    name: str
    model: Any
    gated: Callable[[Tensor], AbstractContextManager[None]] = lambda ids: nullcontext()
    train: Callable[[], None] | None = None

    def prefill(self) -> None:
        """Prefill a prompt."""
        ids = _ids(1, PROMPT_TOKENS)
        with torch.inference_mode(), self.gated(ids):
            self.model(input_ids=ids, use_cache=True, logits_to_keep=1)

    def decode(self, batch: int, tokens: int = NEW_TOKENS) -> None:
        """Generate tokens one by one after a short prompt."""
        ids, cache = _ids(batch, 16), None
        with torch.inference_mode(), self.gated(ids):
            for _ in range(tokens):
                given = ids if cache is None else ids[:, -1:]
                output = self.model(
                    input_ids=given, use_cache=True, logits_to_keep=1, past_key_values=cache
                )
                cache = output.past_key_values
                ids = torch.cat([ids, output.logits[:, -1:].argmax(-1)], dim=1)

    def step(self) -> None:
        """One forward and backward pass."""
        ids = _ids(1, TRAINED_TOKENS)
        with self.gated(ids):
            self.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        self.model.zero_grad(set_to_none=True)


def _ids(rows: int, tokens: int) -> Tensor:
    return torch.arange(rows * tokens).view(rows, tokens) % 256


def systems(student: str, settings: ExpertSettings, folder: Path) -> Iterator[System]:
    """Build every system on the same weights; only `merged` has its own copy.

    Args:
        student: Name or folder.
        settings: The shape of the experts.
        folder: For the experts' files.
    """
    base = load_student(student, device="cpu")

    def copied() -> Student:
        own = load_student(student, device="cpu", wanted=base.fingerprint)
        weights = dict(base.model.named_parameters())
        for name, parameter in own.model.named_parameters():
            parameter.data = weights[name].data
        return own

    first = RoutedStudent(copied(), settings, "softmax", [0.5, 0.3, 0.2])
    torch.manual_seed(0)
    for name, parameter in first.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02)
    first.save(folder / "experts")
    paths = [str(folder / "experts" / adapter) for adapter in first.adapters]

    yield System("base", base.model)
    one = PeftModel.from_pretrained(copied().model, paths[0])
    yield System("lora", one, train=lambda: one.set_adapter("default"))
    for fusion in OURS:
        routed = RoutedStudent.load(folder / "experts", student=copied())
        routed.use_fusion(fusion)
        if fusion == "merged":
            lora = export_experts(folder / "experts", folder / "merged")
            own = load_student(student, device="cpu", wanted=base.fingerprint)
            yield System(
                "merged", PeftModel.from_pretrained(own.model, str(lora)).merge_and_unload()
            )
        else:
            yield _routed(routed)


def _routed(routed: RoutedStudent) -> System:
    def gated(ids: Tensor) -> AbstractContextManager[None]:
        with torch.no_grad():
            embedded_BTH = routed.student.model.get_input_embeddings()(ids)
            gates = routed.fusion(embedded_BTH.mean(dim=1))
        return routed.gate_state.use(gates)

    return System(routed.fusion_name, routed.model, gated, train=routed.train_experts)


TASKS: Mapping[str, Callable[[System], None]] = MappingProxyType(
    {
        "prefill": System.prefill,
        "decode": lambda system: system.decode(1),
        "decode_16": lambda system: system.decode(16),
        # Must be last: trainable experts are stacked again in each pass.
        "train": System.step,
    }
)


def measure(every: list[System], rounds: int, tasks: Iterable[str]) -> Iterator[Times]:
    """Yield, after each task, all seconds so far by system and task, one number per round."""
    times: dict[str, dict[str, list[float]]] = {system.name: {} for system in every}
    for task in tasks:
        chosen = every
        if task == "train":
            chosen = [system for system in every if system.train is not None]
            for system in chosen:
                assert system.train is not None
                system.train()
        for turn in range(-1, rounds):  # The first, a warm-up, does not count.
            # Alternate the direction, so that none always follows the same one.
            for system in chosen if turn % 2 else reversed(chosen):
                # Bring its weights into the CPU caches before the clock starts, as those that
                # the other systems share already are.
                system.decode(1, tokens=1)
                started = perf_counter()
                TASKS[task](system)
                if turn >= 0:
                    times[system.name].setdefault(task, []).append(perf_counter() - started)
            typer.echo(f"{task}: round {turn + 1} of {rounds}", err=True)
        yield times


def ratios(times: Times) -> dict[str, dict[str, float]]:
    """The ratios named in ``RATIOS``."""
    return {
        name: {
            task: round(
                median(
                    one / other
                    for one, other in zip(times[above][task], times[below][task], strict=True)
                ),
                3,
            )
            for task in tasks
            if task in times.get(below, {})
        }
        for name, (above, below, tasks) in RATIOS.items()
        if {above, below} <= times.keys()
    }


def main(
    output: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where the result goes.")],
    student: Annotated[str, typer.Option(help="Folder or name of a causal LM.")] = DEFAULT_STUDENT,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    r: Annotated[int, typer.Option(min=1, help="Rank of each expert.")] = 8,
    layers: Annotated[int, typer.Option(min=0, help="Uppermost layers; 0 for all.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="A system to time, repeatable.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(TASKS)}, repeatable.")
    ] = None,
) -> None:
    """Time prefill, decoding and a training step of every system."""
    known = ("base", "lora", *OURS)
    if unknown := set(only or ()) - set(known):
        raise typer.BadParameter(f"no system is called {min(unknown)!r}: there are {known}")
    if unknown := set(task or ()) - set(TASKS):
        raise typer.BadParameter(f"no task is called {min(unknown)!r}: there are {tuple(TASKS)}")
    settings = ExpertSettings(r=r, lora_alpha=2 * r, layers=layers or None)
    config = {
        "student": student,
        "r": r,
        "experts": 3,
        "layers": layers or "all",
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "tokens": {"prefill": PROMPT_TOKENS, "decode": NEW_TOKENS, "train": TRAINED_TOKENS},
    }
    document: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        built = systems(student, settings, Path(folder))
        chosen = [system for system in built if not only or system.name in only]
        for times in measure(chosen, rounds, [name for name in TASKS if not task or name in task]):
            seconds = {
                name: {done: median(mine) for done, mine in by_task.items()}
                for name, by_task in times.items()
            }
            document = {"ratios": ratios(times), "seconds": seconds, "config": config}
            write_json(output, document)
    for name, by_task in document["seconds"].items():
        shown = "  ".join(f"{done} {value:.3f} s" for done, value in by_task.items())
        typer.echo(f"{name:14s}{shown}")
    typer.echo(json.dumps(document["ratios"], indent=2))


if __name__ == "__main__":
    run_command(main)
