"""`TrainingRun`: the artifacts of one training: each expert, the router, and their folder."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import ROUTERS, make_fusion
from routedk.adapters.experts.routing_file import (
    GROUPING_FOLDER,
    ROUTER_FILE,
    ExpertSettings,
    read_routing,
    settings_of,
    write_routing,
)
from routedk.adapters.experts.weights import expert_hashes
from routedk.adapters.grouping.fit import fit_grouping
from routedk.adapters.grouping.pair_trainer import PairSettings, multiplies_in_bf16
from routedk.adapters.student import (
    DEFAULT_STUDENT,
    Student,
    chosen_student,
    context_window,
    find_student,
    fingerprint,
    load_student,
    load_tokenizer,
)
from routedk.adapters.training.curves import plot_losses
from routedk.adapters.training.examples import (
    FORMER_FORM,
    AnswerForm,
    Lesson,
    TrainingRow,
    training_rows,
    within_window,
)
from routedk.adapters.training.fit import RECORD_FILE, fit
from routedk.adapters.training.processes import is_main, join, obtain_together, place
from routedk.adapters.training.stage import Stage, expert_stage, router_stage
from routedk.artifacts import Artifact, ArtifactStore, Recipe, content_hash
from routedk.artifacts.store import MANIFEST
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json, write_jsonl_records
from routedk.programs.grouping.encoder import RECORD
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.labels import Labelled

if TYPE_CHECKING:
    from routedk.adapters.train import TrainConfig

# A student trained to write these groups items itself.
GENERATIVE_FORMS: tuple[str, ...] = ("item-intents", "bundles")


class TrainingRun:
    """Trains the experts and router of a config, each once.

    Args:
        config: All settings.
        store: Keeps the artifacts.

    Raises:
        StudentError: The student cannot be found.
        ArtifactError: The config's trained experts are damaged, or of another student.
    """

    def __init__(self, config: "TrainConfig", store: ArtifactStore | str | Path | None) -> None:
        join()
        self.config = config
        self.store = ArtifactStore.of(store)
        self.shape: ExpertSettings = config.shape
        self.form: AnswerForm = config.answer_form
        named, wanted = chosen_student(config.student), None
        self.name = named or DEFAULT_STUDENT
        if config.experts is not None:
            document = read_routing(config.experts)
            self.name = named or document["student"]["name"]
            wanted = document["student"]["fingerprint"]
            self.shape = replace(settings_of(document), router_input=config.router_input)
            self.form = (document.get("training") or {}).get("answer_form", FORMER_FORM)
        self.folder = folder = find_student(self.name, wanted=wanted)
        self.tokenizer, self.fingerprint = load_tokenizer(folder), fingerprint(folder)
        if wanted not in (None, self.fingerprint):
            raise ArtifactError(
                f"{config.experts}: trained on a student with fingerprint {wanted}, but "
                f"{self.name!r} has {self.fingerprint}"
            )
        names = self.shape.experts
        self.fusion = config.fusion if len(names) > 1 else f"single:{names[0]}"
        # Base comes first, even if it is not fused: the others start from it.
        self._trained = dict.fromkeys(names if config.experts else ("base", *names))

    def rows(
        self, lessons: Sequence[Lesson], shown: Mapping[str, CompiledKnowledge]
    ) -> dict[str, list[TrainingRow]]:
        """The rows of all experts.

        Args:
            lessons: What to learn from.
            shown: What each expert may see.

        Raises:
            SettingError: The thought expert has no thought to see.
            DataError: No label has an intent that can be learned.
        """
        if {"thought", "mixed"} & {*self.shape.experts} and not shown["thought"].sessions:
            raise SettingError(
                "no training session has a thought: distill thoughts from them first, or leave the "
                "thought expert out"
            )
        rows = {
            name: training_rows(self.tokenizer, lessons, shown[name], name, self.form)
            for name in self._trained
        }
        if self.form == "bundle-intent" and not any(rows.values()):
            raise DataError(
                "no bundle of a training session has an intent of 3 letters to 8 words",
                hint="give their intents, or train with the answer form bundles",
            )
        return rows

    def train(
        self, rows: Mapping[str, Sequence[TrainingRow]], labelled: Sequence[Labelled] = ()
    ) -> Path:
        """Train the experts on their rows and the grouping on labels.

        Args:
            rows: The rows of all experts; those longer than the student's window are left out.
            labelled: What the grouping learns from; empty to train none.

        Returns:
            The folder of experts.
        """
        rows, long = within_window(rows, context_window(self.folder))
        grouping = self._grouping(labelled)
        stages: dict[str, Artifact] = {}
        folders: dict[str, Path] = {}
        for name in self._trained:
            if (folder := self.config.experts) is None:
                # The router's input and the other experts make no difference to this one.
                alone = replace(self.shape, experts=(name,), router_input="session")
                start = {name: folders["base"]} if folders else {}
                stage = expert_stage(self.config, first=not folders, rows=len(rows[name]))
                stages[name] = self._obtain("uniform", alone, start, rows[name], stage)
                folder = stages[name].folder
            folders[name] = Path(folder) / f"expert_{name}"
        folders = {name: folders[name] for name in self.shape.experts}
        routed_by = "softmax" if self.fusion == "merged" else self.fusion
        if routed_by in ROUTERS:
            every = [row for name in folders for row in rows[name]]
            stage = router_stage(self.config)
            stages["router"] = self._obtain(routed_by, self.shape, folders, every, stage)
        taught = {row.session_id for row in rows["base"]} if "base" in stages else ()
        told = {"sessions": len(taught) or None, "longer_than_window": long}
        recipe = Recipe(
            stage="experts",
            inputs={
                "experts": expert_hashes(folders),
                "stages": {name: artifact.key for name, artifact in stages.items()},
                "student": [self.name, self.fingerprint],
                "grouping": grouping and content_hash(read_json(grouping / RECORD)),
            },
            settings={
                "fusion": self.fusion,
                "shape": asdict(self.shape),
                "answer_form": self.form,
                "utilization": self.config.utilization,
            },
        )

        def make(out: Path, work: Path) -> None:
            if is_main():
                self._write(out, folders, stages, told)
                if grouping is not None:
                    shutil.copytree(
                        grouping, out / GROUPING_FOLDER, ignore=shutil.ignore_patterns(MANIFEST)
                    )

        return obtain_together(self.store, recipe, make).folder

    def _grouping(self, labelled: Sequence[Labelled]) -> Path | None:
        """The folder of the grouping; None if there is none, e.g. if the student groups items."""
        if not labelled or self.form in GENERATIVE_FORMS:
            return None
        if self.config.experts is not None:
            given = Path(self.config.experts) / GROUPING_FOLDER
            return given if given.is_dir() else None
        settings = PairSettings(
            encoder=self.config.encoder,
            epochs=self.config.grouping_epochs,
            bf16=multiplies_in_bf16(self.config.bf16),
            seed=self.config.seed,
        )
        recipe = Recipe(
            stage="grouping",
            inputs={"labelled": content_hash([one.record for one in labelled])},
            settings={**asdict(settings), "gpu": torch.cuda.is_available()},
        )
        return obtain_together(
            self.store,
            recipe,
            lambda out, _: fit_grouping(labelled, settings, out if is_main() else None),
        ).folder

    @cached_property
    def _student(self) -> Student:
        return load_student(self.name, wanted=self.fingerprint)

    def _obtain(
        self,
        fusion: str,
        shape: ExpertSettings,
        start: Mapping[str, Path],
        rows: Sequence[TrainingRow],
        stage: Stage,
    ) -> Artifact:
        """The artifact of a router, or of an expert if the fusion has nothing to learn.

        Args:
            fusion: The fusion of the experts put on the student.
            shape: Their shape.
            start: Folders of the experts that start from trained weights, by name.
            rows: What to learn from, before the stage takes its share.
            stage: How to train.
        """
        sampled = stage.sample(rows)
        hashed = [[row.prompt.ids, row.prompt.span, row.lines] for row in sampled]
        recipe = Recipe(
            stage="router" if fusion in ROUTERS else "expert",
            inputs={
                "student": self.fingerprint,
                "experts": expert_hashes(start),
                "rows": content_hash(hashed),
            },
            settings={
                "shape": asdict(shape),
                "fusion": fusion,
                "stage": asdict(replace(stage, save_steps=0)),
                "gpu": torch.cuda.is_available(),
                "processes": place()[1],
            },
        )

        def make(out: Path, work: Path) -> None:
            with torch.random.fork_rng():
                torch.manual_seed(self.config.seed)
                routed = RoutedStudent(self._student, shape, fusion)
            try:
                for name, folder in start.items():
                    routed.read_expert(name, folder)
                fit(routed, sampled, stage, out, work)
            finally:
                routed.unload()

        return obtain_together(self.store, recipe, make)

    def _write(
        self,
        out: Path,
        folders: Mapping[str, Path],
        stages: Mapping[str, Artifact],
        told: Mapping[str, Any],
    ) -> None:
        """Write the folder of experts from its parts, with a record of its training."""
        for name, folder in folders.items():
            shutil.copytree(folder, out / f"expert_{name}")
        records: dict[str, Any] = {
            name: read_json(artifact.folder / RECORD_FILE) for name, artifact in stages.items()
        }
        mean_gates = records.get("router", {}).get("mean_gates")
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
            **told,
            "tokens": {name: mine["curve"][-1]["tokens"] for name, mine in records.items()},
            "seconds": round(sum(artifact.seconds for artifact in stages.values()), 1),
            "settings": {k: str(v) if isinstance(v, Path) else v for k, v in config.items()},
            "answer_form": self.form,
            "utilization": self.config.utilization,
        }
        student = {"name": self.name, "fingerprint": self.fingerprint}
        write_routing(out, student, self.shape, self.fusion, mean_gates, training)
