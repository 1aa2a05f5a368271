"""From a student, sessions and knowledge to trained experts with their router, on disk."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from routedk.adapters.experts.routed import (
    ExpertSettings,
    RoutedStudent,
    check_replaceable,
    read_routing,
)
from routedk.adapters.experts.router import LEARNT
from routedk.adapters.student import Student
from routedk.adapters.training.curves import plot_losses
from routedk.adapters.training.examples import (
    DEFAULT_FORM,
    AnswerForm,
    TrainingRow,
    check_form,
    training_rows,
)
from routedk.adapters.training.processes import is_main, join, place, wait
from routedk.adapters.training.router_training import RouterTraining
from routedk.adapters.training.stages import (
    PreparedRow,
    TrainingSettings,
    prepare,
    train_experts,
    train_router,
)
from routedk.errors import SettingError
from routedk.files import write_jsonl_records
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.utilization import check_trains
from routedk.types import KnowledgeBase, Session


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """All settings of a training run.

    Args:
        experts: The shape of the experts.
        base: How the base expert is trained.
        knowledge: How the other experts are, starting from the base expert's weights.
        router: How the router is.
        fusion: How the experts are fused: a name in the table of `routedk.adapters.experts.router`.
        router_training: What the router learns from.
        one_by_one: Whether the other experts are trained one after the other, each in a run of
            its own, instead of together in one run: the same rows, in another order and in other
            batches, so that the experts come out alike, not equal.
        answer_form: What the experts learn to write: a form of
            `routedk.adapters.training.examples`.
        utilization: How the knowledge is used, see `routedk.programs.knowledge.utilization`: one
            that trains, or None.
        seed: Seed of all chance.

    Raises:
        SettingError: The utilization trains nothing, a name is unknown, or the fusion's router
            cannot be trained so.
    """

    experts: ExpertSettings = field(default_factory=ExpertSettings)
    base: TrainingSettings = field(default_factory=TrainingSettings)
    knowledge: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(share=0.3, epochs=3, learning_rate=1e-3)
    )
    router: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(share=0.1, epochs=2, learning_rate=2e-2)
    )
    fusion: str = "softmax"
    router_training: RouterTraining = field(default_factory=RouterTraining)
    one_by_one: bool = False
    answer_form: AnswerForm = DEFAULT_FORM
    utilization: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_form(self.answer_form)
        check_trains(self.utilization)
        self.router_training.check(self.fusion, len(self.experts.experts))


def fit(
    student: Student,
    sessions: Sequence[Session],
    knowledge: KnowledgeBase,
    folder: str | Path,
    settings: FitSettings | None = None,
    *,
    experts: str | Path | None = None,
) -> RoutedStudent:
    """Train the experts and then the router, and save them.

    Under ``accelerate launch`` all processes call this alike, and share the work; the main one
    alone writes.

    Stages: the base expert; the other experts, from its weights on, together in one run; the
    router, on prompts of all kinds. Work under ``folder/work`` lets a killed run resume; it is
    told apart by its settings, its data and the number of processes.

    Args:
        student: The frozen base.
        sessions: Training sessions with gold.
        knowledge: What was distilled from them.
        folder: Gets the experts as plain PEFT folders, ``router.safetensors``, ``routing.json``,
            ``loss.jsonl`` and ``loss.png``.
        settings: How to train.
        experts: Folder of experts that are trained already: then only a router is, over them.
            Their shape is to be that of the settings.

    Raises:
        SettingError: No session has a thought, the base expert is not the first of the experts,
            or trained experts are given and their shape is another, or no router to train.
        ArtifactError: The folder holds something else than experts.
    """
    settings = settings or FitSettings()
    _check(settings, folder)
    shown = CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        sessions=tuple(sessions),
        thoughts={thought.session_id: thought.text for thought in knowledge.thoughts},
    )
    names, form = settings.experts.experts, settings.answer_form
    rows = training_rows(student.tokenizer, sessions, shown, names, form)
    return fit_rows(student, rows, folder, settings, experts=experts)


def fit_rows(
    student: Student,
    rows: Sequence[TrainingRow],
    folder: str | Path,
    settings: FitSettings,
    *,
    experts: str | Path | None = None,
    start: str | Path | None = None,
) -> RoutedStudent:
    """As `fit`, on rows that are made already.

    Args:
        student: The frozen base.
        rows: Of all experts of the settings, in the form that these name.
        folder: As in `fit`.
        settings: How to train.
        experts: As in `fit`.
        start: Folder of one trained expert, in PEFT's layout: the first expert of the settings,
            whatever its name, starts from its weights, and is trained as they say of ``base``.

    Raises:
        SettingError: As `fit`.
        ArtifactError: As `fit`, or the expert to start from is damaged or of another shape.
    """
    _check(settings, folder, any_first=start is not None)
    folder = Path(folder).resolve()
    join(student.model.device)
    routed = (
        _untrained(student, settings) if experts is None else _given(student, experts, settings)
    )
    if start is not None:
        routed.read_expert(settings.experts.experts[0], start)
    work = folder.parent / f".{folder.name}.work" / _key(settings, routed, rows)
    started = time.monotonic()
    base = settings.base.sample([row for row in rows if row.expert == 0])
    others = settings.knowledge.sample([row for row in rows if row.expert > 0])
    curves = {} if experts is not None else _train_experts(routed, base, others, work, settings)
    if others and settings.fusion in LEARNT:
        sampled = settings.router.sample(rows)
        prepared = prepare(routed, sampled, work / "router", settings.router)
        curves["router"] = train_router(
            routed, prepared, work / "router", settings.router, settings.router_training
        )
        routed.mean_gates = mean_gates(routed, prepared)
    routed.freeze()
    curve = [{"stage": stage, **record} for stage, mine in curves.items() for record in mine]
    training = {
        "sessions": len(base),
        "tokens": {stage: int(mine[-1]["tokens"]) for stage, mine in curves.items()},
        "seconds": round(time.monotonic() - started, 1),
        "settings": asdict(settings),
        "answer_form": settings.answer_form,
        "utilization": settings.utilization,
    }
    if experts is not None:
        training["experts"] = read_routing(Path(experts)).get("training")
    if is_main():
        routed.save(folder, {"training": training})
        write_jsonl_records(folder / "loss.jsonl", curve)
        plot_losses(curve, folder / "loss.png")
        shutil.rmtree(work)
        if not any(work.parent.iterdir()):
            work.parent.rmdir()
    wait()
    return routed


def _check(settings: FitSettings, folder: str | Path, *, any_first: bool = False) -> None:
    names = settings.experts.experts
    if names[0] != "base" and not any_first:
        raise SettingError(f"experts {names}: the first must be base, the others start from it")
    check_replaceable(Path(folder).resolve())


def _untrained(student: Student, settings: FitSettings) -> RoutedStudent:
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return RoutedStudent(student, settings.experts, settings.fusion)


def _given(student: Student, folder: str | Path, settings: FitSettings) -> RoutedStudent:
    """Trained experts under an untrained router."""
    if settings.fusion not in LEARNT:
        raise SettingError(
            f"fusion {settings.fusion!r} has no router to train over {folder}: it can be asked "
            f"for where experts are used; routers have {', '.join(LEARNT)}"
        )
    routed = RoutedStudent.load(folder, student=student, fusion="uniform")
    wanted = replace(settings.experts, router_input=routed.settings.router_input)
    if routed.settings != wanted:
        raise SettingError(f"{folder}: experts of the shape {routed.settings}, asked for {wanted}")
    routed.settings = settings.experts
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        routed.use_fusion(settings.fusion)
    return routed


def _train_experts(
    routed: RoutedStudent,
    base: Sequence[TrainingRow],
    others: Sequence[TrainingRow],
    work: Path,
    settings: FitSettings,
) -> dict[str, list[dict[str, float]]]:
    """The base expert, then the others; gives the curve of each stage."""
    names = settings.experts.experts
    prepared = prepare(routed, base, work / "base", settings.base)
    curves = {"base": train_experts(routed, prepared, work / "base", settings.base)}
    if others:
        routed.copy_expert(names[0], names[1:])
        prepared = prepare(routed, others, work / "knowledge", settings.knowledge)
        for stage, only in _runs(settings):
            mine = [row for row in prepared if only in (None, names[row.expert])]
            if mine:
                curves[stage] = train_experts(
                    routed, mine, work / stage, settings.knowledge, only=only
                )
    return curves


def _runs(settings: FitSettings) -> list[tuple[str, str | None]]:
    """The runs in which the experts after the first are trained: a name, and of which expert."""
    if not settings.one_by_one:
        return [("knowledge", None)]
    return [(f"knowledge-{name}", name) for name in settings.experts.experts[1:]]


@torch.no_grad()
def mean_gates(routed: RoutedStudent, rows: Sequence[PreparedRow]) -> list[float] | None:
    """The mean gates over these rows; None where gates are not one per session and expert."""
    gates = routed.fusion(torch.stack([row.pooled_H for row in rows]).to(routed.device))
    if not isinstance(gates, torch.Tensor) or gates.ndim != 2:
        return None
    means: list[float] = gates.mean(dim=0).tolist()
    return means


def _key(settings: FitSettings, routed: RoutedStudent, rows: Sequence[TrainingRow]) -> str:
    """A hash of everything a run depends on: only the same run is resumed."""
    student, device = routed.student, routed.device
    stages = (settings.base, settings.knowledge, settings.router)
    precisions = [stage.autocast(device)._enabled for stage in stages]
    on = (precisions, str(student.model.dtype), student.fingerprint, place()[1])
    weights = routed.fingerprint()
    what = repr((asdict(settings), on, weights, rows))
    return hashlib.sha256(what.encode()).hexdigest()[:16]
