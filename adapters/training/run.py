"""`TrainingRun`: the artifacts of one training: each expert, the router, and the folder of all."""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import ROUTERS, make_fusion
from routedk.adapters.experts.routing_file import (
    ROUTER_FILE,
    ExpertSettings,
    read_routing,
    settings_of,
    write_routing,
)
from routedk.adapters.student import (
    DEFAULT_STUDENT,
    Student,
    find_student,
    fingerprint,
    load_student,
    load_tokenizer,
)
from routedk.adapters.train import TrainConfig
from routedk.adapters.training.curves import plot_losses
from routedk.adapters.training.examples import AnswerForm, TrainingRow, check_form, training_rows
from routedk.adapters.training.fit import RECORD_FILE, fit_expert, fit_router
from routedk.adapters.training.processes import is_main, join, obtain_together, place
from routedk.adapters.training.stage import Stage, expert_stage, router_stage
from routedk.artifacts import Artifact, ArtifactStore, Recipe, content_hash
from routedk.errors import ArtifactError, SettingError
from routedk.files import read_json, write_jsonl_records
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import Session

Make = Callable[[Path, Path], None]


class TrainingRun:
    """Trains what a config asks for, each part once.

    Args:
        config: All settings.
        store: Keeps the artifacts.

    Raises:
        StudentError: The student cannot be found.
        ArtifactError: The config's trained experts are damaged, or of another student.
    """

    def __init__(self, config: TrainConfig, store: ArtifactStore | str | Path | None) -> None:
        join()
        self.config = config
        self.store = ArtifactStore.of(store)
        self.shape: ExpertSettings = config.shape
        self.form: AnswerForm = config.answer_form
        self.name, wanted = config.student or DEFAULT_STUDENT, None
        if config.experts is not None:
            document = read_routing(config.experts)
            self.name = config.student or document["student"]["name"]
            wanted = document["student"]["fingerprint"]
            self.shape = replace(settings_of(document), router_input=config.router_input)
            self.form = check_form((document.get("training") or {}).get("answer_form", self.form))
        folder = find_student(self.name, wanted=wanted)
        self.tokenizer = load_tokenizer(folder)
        self.fingerprint = fingerprint(folder)
        if wanted not in (None, self.fingerprint):
            raise ArtifactError(
                f"{config.experts}: trained on a student with fingerprint {wanted}, but "
                f"{self.name!r} has {self.fingerprint}"
            )
        names = self.shape.experts
        self.fusion = config.fusion if len(names) > 1 else f"single:{names[0]}"

    def rows(
        self, sessions: Sequence[Session], shown: Mapping[str, CompiledKnowledge]
    ) -> dict[str, list[TrainingRow]]:
        """The rows of all experts.

        Args:
            sessions: To learn from.
            shown: What each expert may see, with the thoughts that it learns to write.

        Raises:
            SettingError: The thought expert has no thought to see.
        """
        if "thought" in self.shape.experts and not shown["thought"].sessions:
            raise SettingError(
                "no training session has a thought: distil thoughts from them first, or leave the "
                "thought expert out"
            )
        return {
            name: training_rows(self.tokenizer, sessions, shown[name], name, self.form)
            for name in self.shape.experts
        }

    def train(self, rows: Mapping[str, Sequence[TrainingRow]]) -> Path:
        """Train on the rows of all experts; returns the folder of experts."""
        stages: dict[str, Artifact] = {}
        folders: dict[str, Path] = {}
        for name in self.shape.experts:
            folder = self.config.experts
            if folder is None:
                stages[name] = self._expert(name, rows[name], stages.get("base"))
                folder = stages[name].folder
            folders[name] = folder / f"expert_{name}"
        experts = {name: _adapter_hash(folder) for name, folder in folders.items()}
        routed_by = "softmax" if self.fusion == "merged" else self.fusion
        if routed_by in ROUTERS:
            every = [row for name in folders for row in rows[name]]
            stages["router"] = self._router(routed_by, every, folders, experts)
        recipe = Recipe(
            stage="experts",
            inputs={
                "experts": experts,
                "stages": {name: artifact.key for name, artifact in stages.items()},
                "student": [self.name, self.fingerprint],
            },
            settings={
                "fusion": self.fusion,
                "shape": asdict(self.shape),
                "answer_form": self.form,
                "utilization": self.config.utilization,
            },
        )
        make: Make = lambda out, work: self._write(out, folders, stages)  # noqa: E731
        return obtain_together(self.store, recipe, make).folder

    @cached_property
    def _student(self) -> Student:
        return load_student(self.name, wanted=self.fingerprint)

    def _expert(self, name: str, rows: Sequence[TrainingRow], base: Artifact | None) -> Artifact:
        stage = expert_stage(self.config, first=base is None)
        sampled = stage.sample(rows)
        # The router's input and the other experts make no difference to this one.
        shape = replace(self.shape, experts=(name,), router_input="session")
        start = {} if base is None else {name: base.folder / "expert_base"}

        def fit(routed: RoutedStudent, out: Path, work: Path) -> None:
            fit_expert(routed, sampled, stage, self.config.save_steps, out, work)

        inputs = {"rows": _rows_hash(sampled), "base": base.key if base else None}
        recipe = self._recipe("expert", stage, inputs, {"shape": asdict(shape)})
        return obtain_together(self.store, recipe, self._maker(shape, "uniform", start, fit))

    def _router(
        self,
        fusion: str,
        rows: Sequence[TrainingRow],
        folders: Mapping[str, Path],
        experts: Mapping[str, str],
    ) -> Artifact:
        stage = router_stage(self.config)
        sampled = stage.sample(rows)

        def fit(routed: RoutedStudent, out: Path, work: Path) -> None:
            fit_router(routed, sampled, stage, self.config, out, work)

        read = ("router_training", "temperature")
        settings = {
            **{name: getattr(self.config, name) for name in read},
            "fusion": fusion,
            "shape": asdict(self.shape),
        }
        inputs = {"rows": _rows_hash(sampled), "experts": experts}
        recipe = self._recipe("router", stage, inputs, settings)
        return obtain_together(self.store, recipe, self._maker(self.shape, fusion, folders, fit))

    def _recipe(
        self, kind: str, stage: Stage, inputs: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> Recipe:
        on = {"gpu": torch.cuda.is_available(), "processes": place()[1]}
        return Recipe(
            stage=kind,
            inputs={"student": self.fingerprint, **inputs},
            settings={**settings, **on, "stage": asdict(stage)},
        )

    def _maker(
        self,
        shape: ExpertSettings,
        fusion: str,
        folders: Mapping[str, Path],
        fit: Callable[[RoutedStudent, Path, Path], None],
    ) -> Make:
        """What puts experts on the student, trains, and takes them off again."""

        def make(out: Path, work: Path) -> None:
            with torch.random.fork_rng():
                torch.manual_seed(self.config.seed)
                routed = RoutedStudent(self._student, shape, fusion)
            try:
                for name, folder in folders.items():
                    routed.read_expert(name, folder)
                fit(routed, out, work)
            finally:
                routed.unload()

        return make

    def _write(
        self, out: Path, folders: Mapping[str, Path], stages: Mapping[str, Artifact]
    ) -> None:
        """Write the folder of experts from its parts."""
        if not is_main():
            return
        for name, folder in folders.items():
            shutil.copytree(folder, out / f"expert_{name}")
        records: dict[str, Any] = {
            name: read_json(artifact.folder / RECORD_FILE) for name, artifact in stages.items()
        }
        mean_gates = records["router"]["mean_gates"] if "router" in records else None
        if self.fusion in ROUTERS:
            shutil.copy(stages["router"].folder / ROUTER_FILE, out)
        else:
            fixed = make_fusion(self.fusion, self.shape.experts, 1, mean_gates=mean_gates)
            save_file(fixed.state_dict(), out / ROUTER_FILE)
        curve = [
            {"stage": name, **point} for name, mine in records.items() for point in mine["curve"]
        ]
        write_jsonl_records(out / "loss.jsonl", curve)
        plot_losses(curve, out / "loss.png")
        config = asdict(self.config)
        training = {
            "sessions": records["base"]["rows"] if "base" in records else None,
            "tokens": {name: mine["curve"][-1]["tokens"] for name, mine in records.items()},
            "seconds": round(sum(artifact.seconds for artifact in stages.values()), 1),
            "settings": {k: str(v) if isinstance(v, Path) else v for k, v in config.items()},
            "answer_form": self.form,
            "utilization": self.config.utilization,
        }
        student = {"name": self.name, "fingerprint": self.fingerprint}
        write_routing(
            out, student, self.shape, self.fusion, mean_gates=mean_gates, training=training
        )


def _rows_hash(rows: Sequence[TrainingRow]) -> str:
    return content_hash([[row.prompt, row.lines, row.span] for row in rows])


def _adapter_hash(folder: Path) -> str:
    try:
        with (folder / "adapter_model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{folder}: missing or damaged: {error}") from None
