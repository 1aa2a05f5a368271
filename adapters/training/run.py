"""`TrainingRun`: the artifacts of one training: each expert, the router, and the folder of all."""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
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
from routedk.adapters.training.plan import expert_stage, router_stage, router_training
from routedk.adapters.training.processes import is_main, join, obtain_together, place
from routedk.adapters.training.stage import Stage
from routedk.artifacts import Artifact, ArtifactStore, Recipe, content_hash
from routedk.errors import ArtifactError, SettingError
from routedk.files import read_json, write_jsonl_records
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import Session

logger = logging.getLogger(__name__)

Rows = Mapping[str, Sequence[TrainingRow]]


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
        self.former: dict[str, Any] = {}
        self.fusion = config.fusion
        name, wanted = config.student, None
        if config.experts is not None:
            document = read_routing(config.experts)
            self.former = document.get("training") or {}
            self.shape = replace(settings_of(document), router_input=config.router_input)
            self.form = check_form(self.former.get("answer_form", config.answer_form))
            name, wanted = name or document["student"]["name"], document["student"]["fingerprint"]
        if len(self.shape.experts) == 1:  # There is nothing to fuse.
            self.fusion = f"single:{self.shape.experts[0]}"
        name = name or DEFAULT_STUDENT
        folder = find_student(name, wanted=wanted)
        self.tokenizer = load_tokenizer(folder)
        self.student = {"name": name, "fingerprint": fingerprint(folder)}
        if wanted not in (None, self.student["fingerprint"]):
            raise ArtifactError(
                f"{config.experts}: trained on a student of fingerprint {wanted}, but {name!r} "
                f"has {self.student['fingerprint']}"
            )

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
        names = self.shape.experts
        if "thought" in names and not shown["thought"].sessions:
            raise SettingError(
                "no training session has a thought: distil thoughts from them first, or leave the "
                "thought expert out"
            )
        return {
            name: training_rows(self.tokenizer, sessions, shown[name], name, self.form)
            for name in names
        }

    def train(self, rows: Rows) -> Path:
        """Train on the rows of all experts; returns the folder of experts."""
        stages: dict[str, Artifact] = {}
        folders: dict[str, Path] = {}
        if self.config.experts is None:
            for name in self.shape.experts:
                stages[name] = self._expert(name, rows[name], stages.get("base"))
                folders[name] = stages[name].folder / f"expert_{name}"
        else:
            for name in self.shape.experts:
                folders[name] = self.config.experts / f"expert_{name}"
        if self.learnt_fusion in ROUTERS:
            every = [row for name in self.shape.experts for row in rows[name]]
            stages["router"] = router = self._router(every, folders)
            if self.config.router_training == "joint":
                folders = {name: router.folder / f"expert_{name}" for name in folders}
        recipe = Recipe(
            stage="experts",
            inputs={
                "student": self.student,
                "experts": {name: _adapter_hash(folder) for name, folder in folders.items()},
                "stages": {name: artifact.key for name, artifact in stages.items()},
            },
            settings={
                "fusion": self.fusion,
                "shape": asdict(self.shape),
                "form": self.form,
                "utilization": self.config.utilization,
            },
        )

        def make(out: Path, work: Path) -> None:
            if is_main():
                self._write(out, folders, stages)

        return obtain_together(self.store, recipe, make).folder

    @property
    def learnt_fusion(self) -> str:
        """The fusion under which a router is trained, if any."""
        return "softmax" if self.fusion == "merged" else self.fusion

    @cached_property
    def _loaded(self) -> Student:
        return load_student(self.student["name"], wanted=self.student["fingerprint"])

    def _fresh(self, shape: ExpertSettings, fusion: str) -> RoutedStudent:
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            return RoutedStudent(self._loaded, shape, fusion)

    def _expert(self, name: str, rows: Sequence[TrainingRow], base: Artifact | None) -> Artifact:
        stage = expert_stage(self.config, name)
        sampled = stage.sample(rows)
        # The router's input and the other experts make no difference to this one.
        shape = replace(self.shape, experts=(name,), router_input="session")

        def make(out: Path, work: Path) -> None:
            routed = self._fresh(shape, "uniform")
            try:
                if base is not None:
                    routed.read_expert(name, base.folder / "expert_base")
                fit_expert(routed, sampled, stage, out, work, save_steps=self.config.save_steps)
            finally:
                routed.unload()

        inputs = {"rows": _rows_hash(sampled), "base": base.key if base else None}
        return self._obtain("expert", stage, inputs, {"shape": asdict(shape)}, make)

    def _router(self, rows: Sequence[TrainingRow], folders: Mapping[str, Path]) -> Artifact:
        stage, how = router_stage(self.config), router_training(self.config)
        sampled = stage.sample(rows)

        def make(out: Path, work: Path) -> None:
            routed = self._fresh(self.shape, self.learnt_fusion)
            try:
                for name, folder in folders.items():
                    routed.read_expert(name, folder)
                fit_router(
                    routed, sampled, stage, how, out, work, save_steps=self.config.save_steps
                )
            finally:
                routed.unload()

        experts = {name: _adapter_hash(folder) for name, folder in folders.items()}
        settings = {
            "fusion": self.learnt_fusion,
            "shape": asdict(self.shape),
            "how": asdict(how),
        }
        inputs = {"rows": _rows_hash(sampled), "experts": experts}
        return self._obtain("router", stage, inputs, settings, make)

    def _obtain(
        self,
        kind: str,
        stage: Stage,
        inputs: Mapping[str, Any],
        settings: Mapping[str, Any],
        make: Any,
    ) -> Artifact:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        recipe = Recipe(
            stage=kind,
            inputs={"student": self.student["fingerprint"], **inputs},
            settings={
                **settings,
                "stage": {**asdict(stage), "bf16": stage.in_bf16(device)},
                "device": device.type,
                "processes": place()[1],
            },
        )
        return obtain_together(self.store, recipe, make)

    def _write(
        self, out: Path, folders: Mapping[str, Path], stages: Mapping[str, Artifact]
    ) -> None:
        """Write the folder of experts from its parts."""
        for name, folder in folders.items():
            shutil.copytree(folder, out / f"expert_{name}")
        records = {name: _record(artifact) for name, artifact in stages.items()}
        mean_gates = records["router"]["mean_gates"] if "router" in records else None
        if self.fusion in ROUTERS:
            shutil.copy(stages["router"].folder / ROUTER_FILE, out / ROUTER_FILE)
        else:
            fixed = make_fusion(self.fusion, self.shape.experts, 1, mean_gates=mean_gates)
            save_file(fixed.state_dict(), out / ROUTER_FILE)
        curve = [
            {"stage": name, **record} for name, mine in records.items() for record in mine["curve"]
        ]
        write_jsonl_records(out / "loss.jsonl", curve)
        plot_losses(curve, out / "loss.png")
        training: dict[str, Any] = {
            "sessions": records["base"]["rows"] if "base" in records else None,
            "tokens": {name: mine["curve"][-1]["tokens"] for name, mine in records.items()},
            "seconds": round(sum(artifact.seconds for artifact in stages.values()), 1),
            "settings": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in asdict(self.config).items()
            },
            "answer_form": self.form,
            "utilization": self.config.utilization,
        }
        if self.config.experts is not None:
            training["experts"] = self.former
        write_routing(
            out,
            self.student,
            self.shape,
            self.fusion,
            mean_gates=mean_gates,
            training=training,
        )


def _record(artifact: Artifact) -> Any:
    return read_json(artifact.folder / RECORD_FILE)


def _rows_hash(rows: Sequence[TrainingRow]) -> str:
    return content_hash([[row.prompt, row.lines, row.span] for row in rows])


def _adapter_hash(folder: Path) -> str:
    with (folder / "adapter_model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
