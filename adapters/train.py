"""`train`: LoRA experts and the router that fuses them, from sessions and knowledge."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from routedk.errors import DataError, SettingError
from routedk.types import KnowledgeBase, Session


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a training run.

    Args:
        student: Folder or hub name of a causal LM. Unset: the embedded student.
        expert_names: The experts, in gate order, of base, rule and thought. The others start from
            the weights of base, which comes first.
        experts: Folder of trained experts: only a router is trained, over a copy of them. Their
            names, shape and answer form are kept.
        r: Rank of each expert.
        lora_alpha: LoRA scaling is lora_alpha / r.
        layers: Uppermost decoder layers that get experts; 0 for all.
        experts_from: From which token of a prompt on experts are active: start, or session (the
            first token of the session's items; what stands before is then computed once for all
            sessions).
        epochs: Passes of the base expert over its rows.
        learning_rate: Peak for the base expert. Half of it for the others, a quarter of it for
            experts that are trained with the router.
        knowledge_share: Share of rows that the rule and thought experts are trained on.
        knowledge_epochs: Passes over these rows.
        fusion: How experts are fused: softmax, static, top1, layerwise, sparsegen (a router learns
            these), merged (the mean gates of a softmax router), uniform or single:EXPERT.
        router_training: What the router learns from: answer (the cross-entropy under its gates,
            experts frozen), supervised (the loss of each expert alone on each prompt) or joint
            (the cross-entropy, experts trained along).
        router_input: What the router sees: the mean input embedding of the session or of the
            whole prompt, or the mean hidden state below the experts: session-hidden,
            prompt-hidden.
        router_share: Share of rows that the router is trained on. Unset: answer .1, joint .3,
            supervised 1.
        router_epochs: Passes over these rows. Unset: answer 2, joint 1, supervised 10.
        temperature: Of supervised router training, in nats per token: an expert whose loss is
            lower by this much gets e times the share.
        balance: Weight of the loss that favours equal use of all experts.
        sparsity: Weight of the loss that favours few active experts.
        answer_form: What experts learn to write: item-intents, or bundles (which the thought
            expert writes after its thought).
        utilization: Where knowledge is used: SFT (in training only) or SFT+ICL (in the compiled
            prompt as well). Unset: left to compile.
        batch_size: Sessions per step and process.
        max_sessions: Train on a seeded sample of this many sessions.
        gradient_checkpointing: Recompute layers in the backward pass: less memory, more time.
        bf16: Whether a CPU multiplies in bfloat16. Unset: where it has matrix units (AMX) for it.
        save_steps: Steps between checkpoints, from which a killed run resumes.
        seed: Seed of all chance: initial weights, samples, order of rows.

    Raises:
        SettingError: A value is not allowed.
    """

    student: str | None = None
    expert_names: tuple[Literal["base", "rule", "thought"], ...] = ("base", "rule", "thought")
    experts: Path | None = None
    r: int = 8
    lora_alpha: int = 16
    layers: int = 8
    experts_from: Literal["start", "session"] = "start"
    epochs: float = 6.0
    learning_rate: float = 2e-3
    knowledge_share: float = 0.3
    knowledge_epochs: float = 3.0
    fusion: str = "softmax"
    router_training: Literal["answer", "supervised", "joint"] = "answer"
    router_input: Literal["session", "prompt", "session-hidden", "prompt-hidden"] = "session"
    router_share: float | None = None
    router_epochs: float | None = None
    temperature: float = 0.1
    balance: float = 0.0
    sparsity: float = 0.0
    answer_form: Literal["item-intents", "bundles"] = "item-intents"
    utilization: Literal["SFT", "SFT+ICL"] | None = None
    batch_size: int = 4
    max_sessions: int | None = None
    gradient_checkpointing: bool = False
    bf16: bool | None = None
    save_steps: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("epochs", "learning_rate", "knowledge_epochs", "router_epochs", "temperature"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SettingError(f"{name}={value!r}: must be above 0 and finite")


def train(
    sessions: Sequence[Session],
    knowledge: KnowledgeBase,
    config: TrainConfig | None = None,
    *,
    store: Any = None,
) -> Path:
    """Train experts and their router; the same call again finds them trained.

    Args:
        sessions: Training sessions; those with gold bundles are learnt from.
        knowledge: What was distilled from them.
        config: All settings.
        store: Keeps each expert, the router and the result; a killed call resumes from it.

    Returns:
        The folder of experts.

    Raises:
        SettingError: A setting is not allowed, or an expert has nothing to learn.
        DataError: No session has gold bundles.
    """
    from dataclasses import asdict

    from routedk.adapters.experts.routing_file import ExpertSettings
    from routedk.adapters.student import DEFAULT_STUDENT, load_student
    from routedk.adapters.training.fit import fit
    from routedk.adapters.training.plan import TrainingPlan
    from routedk.artifacts import content_hash
    from routedk.cache import cache_folder

    config = config or TrainConfig()
    learnt = [session for session in sessions if session.bundles]
    if not learnt:
        raise DataError("no training session has gold bundles")
    if config.max_sessions is not None and config.max_sessions < len(learnt):
        learnt = random.Random(config.seed).sample(learnt, config.max_sessions)
    plan = TrainingPlan(
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        knowledge_share=config.knowledge_share,
        knowledge_epochs=config.knowledge_epochs,
        router_training=config.router_training,
        router_share=config.router_share,
        router_epochs=config.router_epochs,
        temperature=config.temperature,
        balance=config.balance,
        sparsity=config.sparsity,
        batch_size=config.batch_size,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    shape = ExpertSettings(
        experts=tuple(config.expert_names),
        r=config.r,
        lora_alpha=config.lora_alpha,
        layers=config.layers or None,
        router_input=config.router_input,
        experts_from=config.experts_from,
    )
    settings = plan.fit_settings(
        shape,
        fusion=config.fusion,
        answer_form=config.answer_form,
        utilization=config.utilization,
        seed=config.seed,
    )
    key = content_hash([repr(asdict(config)), repr(learnt), repr(knowledge)])
    folder = (Path(store) if store else cache_folder() / "store") / f"experts-{key[:16]}"
    if not folder.exists():
        student = load_student(config.student or DEFAULT_STUDENT)
        fit(student, learnt, knowledge, folder, settings, experts=config.experts)
    return folder
