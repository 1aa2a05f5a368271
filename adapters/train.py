"""`train`: LoRA experts and the router that fuses them, from sessions and knowledge."""

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.artifacts import ArtifactStore
from routedk.checks import check_choices, check_least
from routedk.errors import SettingError
from routedk.programs.labels import Labels, choose_labels
from routedk.similarity.encoders import check_encoder
from routedk.types import KnowledgeBase, Session

if TYPE_CHECKING:
    from routedk.adapters.training.examples import AnswerForm, Lesson
    from routedk.programs.knowledge.compiled import CompiledKnowledge


logger = logging.getLogger(__name__)

ExpertName = Literal["base", "rule", "thought", "mixed"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `train`.

    Args:
        labels: What to learn from: gold bundles, the teacher's answers, or both, whichever a
            session has.
        teacher_weight: Weight of the teacher's answer when the grouping learns from a session that
            also has gold, from 0 to 1.
        encoder: Sentence encoder, a fine-tuned copy of which groups items: minilm for the packaged
            one, else a folder or hub name.
        grouping_epochs: Maximum passes over the sessions for the grouping. Unset: 2 to 12, more for
            fewer sessions.
        student: Folder or hub name of a causal LM. Unset or default: the one that experts were
            trained on, else the embedded student.
        expert_names: The experts, in gate order, out of base, rule, thought and mixed (which learns
            from the rows of both rule and thought). The others start from the weights of base,
            which comes first or is left out of the fusion.
        experts: Folder of trained experts: only a router is trained, for a copy of them. Their
            names, shape and answer form are kept.
        r: Rank of each expert.
        lora_alpha: LoRA scaling is lora_alpha / r.
        layers: Number of top decoder layers that get experts; 0 for all.
        experts_from: Token of a prompt from which experts are active: start, or session (the first
            token of the items; what precedes it is then computed once for all prompts). Unset:
            session if bundles are named, else start.
        epochs: Passes of the base expert over its rows. Unset: 1 to 6, more for fewer rows.
        learning_rate: Peak learning rate of the base expert; the others get half of it.
        knowledge_share: Share of rows that the experts after the base one are trained on.
        knowledge_epochs: Passes over these rows.
        fusion: How experts are fused: softmax, static, top1, layerwise, sparsegen (a router learns
            these), merged (the mean gates of a softmax router), uniform or single:EXPERT.
        router_training: What the router learns from: answer (the cross-entropy under its gates) or
            supervised (the loss of each expert alone on each prompt). Experts are frozen.
        router_input: What the router sees: the mean input embedding of the session or of the
            whole prompt.
        router_share: Share of rows that the router is trained on. Unset: .1 for answer, 1 for
            supervised.
        router_epochs: Passes over these rows. Unset: 2 for answer, 10 for supervised.
        temperature: Temperature of supervised router training, in nats per token: an expert whose
            loss is lower by this much gets e times the share.
        answer_form: What experts learn to write: bundle-intent (the intent of a given bundle),
            item-intents (the intent of each item of a session), or bundles (which the thought
            expert writes after its thought).
        utilization: Where knowledge is used: SFT (in training only) or SFT+ICL (in the compiled
            prompt as well). Unset: left to compile.
        batch_size: Rows per step and process.
        max_sessions: Train on a seeded sample of this many sessions.
        gradient_checkpointing: Recompute layers in the backward pass: less memory, more time.
        bf16: Multiply in bfloat16. Unset: on a CPU with AMX (for grouping, AVX-512 BF16, too).
        save_steps: Steps between checkpoints, from which a killed run resumes.
        seed: Seed of all randomness: initial weights, samples, row order.

    Raises:
        SettingError: A value is not allowed.
    """

    labels: Labels = "both"
    teacher_weight: float = 0.5
    encoder: str = "minilm"
    grouping_epochs: float | None = None
    student: str | None = None
    expert_names: tuple[ExpertName, ...] = ("base", "rule", "thought")
    experts: Path | None = None
    r: int = 8
    lora_alpha: int = 16
    layers: int = 8
    experts_from: Literal["start", "session"] | None = None
    epochs: float | None = None
    learning_rate: float = 2e-3
    knowledge_share: float = 0.3
    knowledge_epochs: float = 3.0
    fusion: str = "softmax"
    router_training: Literal["answer", "supervised"] = "answer"
    router_input: Literal["session", "prompt"] = "session"
    router_share: float | None = None
    router_epochs: float | None = None
    temperature: float = 0.1
    answer_form: Literal["bundle-intent", "item-intents", "bundles"] = "bundle-intent"
    utilization: Literal["SFT", "SFT+ICL"] | None = None
    batch_size: int = 4
    max_sessions: int | None = None
    gradient_checkpointing: bool = False
    bf16: bool | None = None
    save_steps: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        from routedk.adapters.experts.router import ROUTERS, make_fusion

        check_choices(self)
        check_least(self, layers=0, max_sessions=1, seed=0)
        positive = (
            *("epochs", "learning_rate", "knowledge_share", "knowledge_epochs", "batch_size"),
            "grouping_epochs",
            *("router_share", "router_epochs", "temperature", "save_steps"),
        )
        for name in positive:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SettingError(f"{name}={value!r}: must be above 0 and finite")
        for name in ("knowledge_share", "router_share"):
            value = getattr(self, name)
            if value is not None and value > 1:
                raise SettingError(f"{name}={value!r}: must be at most 1")
        if not 0 <= self.teacher_weight <= 1:
            raise SettingError(f"teacher_weight={self.teacher_weight}: it must be from 0 to 1")
        check_encoder(self.encoder)
        names = self.shape.experts
        if "base" in names[1:]:
            raise SettingError(f"experts {names}: base comes first, the others start from it")
        if "mixed" in names and self.answer_form == "bundles":
            raise SettingError("experts mixed: rule and thought do not write the same form bundles")
        make_fusion(self.fusion, names, 1, 1, [1 / len(names)] * len(names))
        if self.experts is not None and self.fusion not in (*ROUTERS, "merged"):
            raise SettingError(
                f"fusion {self.fusion!r} has no router to train over {self.experts}: it can be "
                f"asked for where experts are used; routers have {', '.join(ROUTERS)}"
            )
        if self.fusion == "sparsegen" and self.router_training == "supervised":
            raise SettingError(
                "router training 'supervised': the gates of fusion 'sparsegen' are per token, "
                "which no loss per session teaches: use answer"
            )

    def sampled(self, sessions: list[Any]) -> list[Any]:
        """A seeded sample of ``max_sessions`` of them, or all."""
        if self.max_sessions is None or self.max_sessions >= len(sessions):
            return sessions
        return random.Random(self.seed).sample(sessions, self.max_sessions)

    @property
    def shape(self) -> ExpertSettings:
        """The shape of the experts to train."""
        unset: Literal["start", "session"]
        unset = "session" if self.answer_form == "bundle-intent" else "start"
        return ExpertSettings(
            experts=tuple(self.expert_names),
            r=self.r,
            lora_alpha=self.lora_alpha,
            layers=self.layers or None,
            router_input=self.router_input,
            experts_from=self.experts_from or unset,
        )


def train(
    sessions: Sequence[Session],
    knowledge: KnowledgeBase,
    config: TrainConfig | None = None,
    *,
    store: ArtifactStore | str | Path | None = None,
) -> Path:
    """Train experts and their router; repeating the call reuses what is trained.

    Labels are annotators' gold, a teacher's answers, or both. From them, a sentence encoder learns
    how to group items, and the student's experts how to name bundles, with the knowledge in their
    prompts. The grouping, the base expert, each other expert, the router and the folder of all of
    them are separate artifacts, so calls that share one train it only once. A killed call resumes
    from its last checkpoint; only the grouping starts over.

    Under ``accelerate launch`` all processes make the same call and share the work.

    Args:
        sessions: Training sessions, with or without gold bundles.
        knowledge: What was distilled from them, including a teacher's answers.
        config: All settings.
        store: Keeps the artifacts; None for the default store in the cache folder.

    Returns:
        The folder of experts: plain PEFT folders, ``router.safetensors``, ``routing.json``,
        ``grouping``, ``loss.jsonl`` and ``loss.png``.

    Raises:
        SettingError: A setting is not allowed, or no session has a thought for the thought expert.
        DataError: No session has a label with a bundle.
        StudentError: The student cannot be found.
        TrainingDivergedError: A loss or weight is no longer finite; nothing from its stage is kept.

    Example:
        >>> from routedk import TrainConfig, distill, load_sessions, train
        >>> sessions = load_sessions("demo")[:4]
        >>> config = TrainConfig(epochs=1, layers=1)
        >>> experts = train(sessions, distill(sessions), config)
    """
    from routedk.adapters.training.run import TrainingRun

    config = config or TrainConfig()
    labelled = config.sampled(
        choose_labels(sessions, knowledge, config.labels, config.teacher_weight)
    )
    learnt = [session for one in labelled for session in one.sessions if session.bundles]
    run = TrainingRun(config, store)
    if {"rule", "mixed"} & {*run.shape.experts} and not (knowledge.rules or config.experts):
        logger.warning("no rule was distilled: what learns from rules learns without any")
    lessons = choose_lessons(learnt, knowledge, run.form)
    return run.train(run.rows(lessons, shown_knowledge(lessons, knowledge, run.form)), labelled)


def choose_lessons(
    learnt: Sequence[Session], knowledge: KnowledgeBase, form: "AnswerForm"
) -> "list[Lesson]":
    """Give each label the thought that is learned with it.

    It is the language model's if the label's bundles follow from it, else the annotation teacher's.
    If bundles are named, there is none.

    Args:
        learnt: Sessions whose bundles are the labels; a session may occur once per label.
        knowledge: What was distilled.
        form: What the experts learn to write.
    """
    if form == "bundle-intent":
        return [(session, "") for session in learnt]
    from routedk.programs.prompting.item_intents import compose_bundles, read_item_intents
    from routedk.programs.teachers.annotation_intents import GoldIntents
    from routedk.programs.teachers.config import ANNOTATION

    stated = {
        thought.session_id: thought.text
        for thought in knowledge.thoughts
        if thought.provenance.teacher != ANNOTATION
    }
    intents = GoldIntents(learnt)

    def thought(session: Session) -> str:
        text = stated.get(session.id, "")
        named = read_item_intents(text, len(session.items))
        meant = {bundle.items for bundle in compose_bundles(named, session)}
        return text if meant == set(session.gold) else intents.thought(session)

    return [(session, thought(session)) for session in learnt]


def shown_knowledge(
    lessons: "Sequence[Lesson]", knowledge: KnowledgeBase, form: "AnswerForm"
) -> "dict[str, CompiledKnowledge]":
    """Select the knowledge that each expert's prompts may show.

    The thought expert's neighbours are the sessions that have a distilled thought or, if bundles
    are named, all labelled ones.

    Args:
        lessons: What is learned, as `choose_lessons` returns it.
        knowledge: What was distilled.
        form: What the experts learn to write.
    """
    from routedk.programs.knowledge.compiled import CompiledKnowledge

    # Of a session's two labels the teacher's, which is worded more carefully, comes last.
    distinct = {session.id: (session, thought) for session, thought in lessons}
    if form != "bundle-intent":
        distilled_from = {thought.session_id for thought in knowledge.thoughts}
        distinct = {name: one for name, one in distinct.items() if name in distilled_from}
    rules = tuple(rule.text for rule in knowledge.rules)
    thoughts = CompiledKnowledge(
        sessions=tuple(session for session, _ in distinct.values()),
        thoughts={name: thought for name, (_, thought) in distinct.items() if thought},
    )
    return {
        "base": CompiledKnowledge(),
        "rule": CompiledKnowledge(rules=rules),
        "thought": thoughts,
        "mixed": replace(thoughts, rules=rules),
    }
