"""`distill`: knowledge from training sessions, made by a language model or read off annotations."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routedk.artifacts import Artifact, ArtifactStore, Recipe, content_hash
from routedk.data.knowledge_file import read_knowledge, write_knowledge
from routedk.data.records import session_to_record
from routedk.errors import DataError, SettingError
from routedk.files import read_json, write_json
from routedk.programs.lm_identity import address_of, lm_identity
from routedk.programs.teachers.config import ANNOTATION, DistillConfig
from routedk.types import KnowledgeBase, Session

if TYPE_CHECKING:
    from routedk.programs.teachers.lm_teacher import OnStep
    from routedk.programs.teachers.plan import PlannedStep

__all__ = ["DistillConfig", "distill", "distill_artifact", "plan_distill"]

logger = logging.getLogger(__name__)

KNOWLEDGE = "knowledge.jsonl"
REPORT = "report.json"


def distill(
    sessions: Sequence[Session],
    config: DistillConfig | None = None,
    *,
    lm: Any = None,
    store: ArtifactStore | str | Path | None = None,
    on_step: "OnStep | None" = None,
) -> KnowledgeBase:
    """Distill patterns, rules and thoughts from the gold bundles of training sessions.

    The annotation teacher needs no network and no language model. The answers of an LM teacher
    are kept in a journal in the store as they arrive: a run that was killed resumes when it is
    started again, and pays for no answer twice. The same sessions, config and model give the
    knowledge that is in the store.

    Example:
        >>> from routedk import DistillConfig, distill, load_sessions
        >>> knowledge = distill(load_sessions("demo")[:40], DistillConfig(max_rules=2))
        >>> len(knowledge.rules), len(knowledge.thoughts)
        (2, 40)

    Args:
        sessions: Training sessions; those that nobody annotated add nothing.
        config: All settings.
        lm: A ``dspy.LM`` that takes the place of the teacher that the config names.
        store: Where knowledge and answers are kept; None for the default store.
        on_step: Called from any thread after each session of an LM teacher's step: its name
            (``answer``, ``rule`` or ``thought``), sessions done, and how many there are.

    Raises:
        DataError: No session has gold bundles, or another process is asking the same teacher.
        SettingError: Settings do not fit the teacher.
        LMError: The teacher failed in a way that would meet every session.
    """
    artifact = distill_artifact(sessions, config, lm=lm, store=store, on_step=on_step)
    return read_knowledge(artifact.folder / KNOWLEDGE)


def distill_artifact(
    sessions: Sequence[Session],
    config: DistillConfig | None = None,
    *,
    lm: Any = None,
    store: ArtifactStore | str | Path | None = None,
    on_step: "OnStep | None" = None,
) -> Artifact:
    """As `distill`, but the artifact: ``knowledge.jsonl``, and ``report.json`` with what happened.

    Args:
        sessions: As there.
        config: As there.
        lm: As there.
        store: As there.
        on_step: As there.
    """
    run = _Run(sessions, config or DistillConfig(), lm, ArtifactStore.of(store), on_step)
    artifact = run.store.obtain(run.recipe, run.make)
    _warn(read_json(artifact.folder / REPORT))
    return artifact


def plan_distill(
    sessions: Sequence[Session], config: DistillConfig | None = None
) -> list["PlannedStep"]:
    """The calls, tokens and cost that distilling will come to; nothing is asked.

    Args:
        sessions: Training sessions.
        config: All settings.

    Returns:
        The steps of an LM teacher; none for the annotation teacher, which makes no calls.

    Raises:
        DataError: No session has gold bundles.
    """
    config = config or DistillConfig()
    pool = _annotated(sessions)
    if config.teacher == ANNOTATION:
        return []
    from routedk.programs.teachers.plan import plan_calls

    scores = _read_scores(config)
    scored = pool if _needs_scores(config, pool, scores) else []
    if scored:
        # Which sessions are difficult is not known before they are answered: any stand for them.
        scores = {session.id: 0.0 for session in pool}
    return plan_calls(config, _sample(pool, config, scores), scored)


class _Run:
    """One call of `distill`: its recipe, and how to make what it stands for."""

    def __init__(
        self,
        sessions: Sequence[Session],
        config: DistillConfig,
        lm: Any,
        store: ArtifactStore,
        on_step: "OnStep | None",
    ) -> None:
        self.pool = _annotated(sessions)
        self.config = config
        self.store = store
        self.on_step = on_step
        self.lm = lm if lm is not None else _named_lm(config)
        self.scores = _read_scores(config)
        if self.lm is None and _needs_scores(config, self.pool, self.scores):
            raise SettingError(
                "strategy 'difficulty' needs scores: give a file of scores, or an LM teacher, "
                "which answers every session first"
            )
        self.name: str = ANNOTATION if self.lm is None else self.lm.model
        self.inputs = {
            "sessions": content_hash([session_to_record(session) for session in self.pool]),
            "scores": None if self.scores is None else content_hash(self.scores),
            "teacher": self.name if self.lm is None else lm_identity(self.lm),
            "address": "" if self.lm is None else address_of(self.lm),
        }

    @property
    def recipe(self) -> Recipe:
        budget = {"max_tokens": self.config.max_tokens, "max_cost": self.config.max_cost}
        settings = {**self.config.recorded, **budget}
        return Recipe(stage="knowledge", inputs=self.inputs, settings=settings)

    def make(self, out: Path, work: Path) -> None:
        made = self._annotation_knowledge() if self.lm is None else self._lm_knowledge()
        sample, knowledge, told = made
        write_knowledge(knowledge, out / KNOWLEDGE)
        report = {
            "kind": "routedk.knowledge",
            "teacher": self.name,
            "config": self.config.recorded,
            "counts": {
                "sessions": len(sample),
                "sessions_with_bundles": sum(bool(session.bundles) for session in sample),
                "patterns": len(knowledge.patterns),
                "rules": len(knowledge.rules),
                "thoughts": len(knowledge.thoughts),
            },
            **told,
            "sessions": [session.id for session in sample],
        }
        write_json(out / REPORT, report)

    def _annotation_knowledge(self) -> tuple[list[Session], KnowledgeBase, dict[str, Any]]:
        from routedk.programs.teachers.annotation import annotation_knowledge

        sample = _sample(self.pool, self.config, self.scores)
        return sample, annotation_knowledge(sample, self.config), {}

    def _lm_knowledge(self) -> tuple[list[Session], KnowledgeBase, dict[str, Any]]:
        from routedk.programs.journal.budget import price_of
        from routedk.programs.journal.journal import open_journal
        from routedk.programs.journal.journaled_lm import journaled_lm
        from routedk.programs.sampling.difficulty import difficulty_scores
        from routedk.programs.teachers.lm_teacher import LMTeacher

        # A run with a higher budget continues the one that was stopped by a lower one.
        run = Recipe(stage="knowledge", inputs=self.inputs, settings=self.config.recorded).key
        # An answer that was cut short is not worth a warning: what is made of it is checked.
        logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)
        with open_journal(self._journal_path()) as journal:
            lm = journaled_lm(
                self.lm,
                journal,
                run=run,
                max_tokens=self.config.max_tokens,
                max_cost=self.config.max_cost,
            )
            scores = self.scores
            if _needs_scores(self.config, self.pool, scores):
                scores = difficulty_scores(
                    self.pool, lm, threads=self.config.threads, on_step=self.on_step
                )
            sample = _sample(self.pool, self.config, scores)
            teacher = LMTeacher(
                lm, self.config, price=partial(price_of, self.lm), on_step=self.on_step
            )
            knowledge = teacher.distill(sample)
            spent = journal.spent(run)
        told = {
            "spent": {**asdict(spent), "tokens": spent.tokens},
            "replayed": lm.engine.replayed,
            "report": asdict(teacher.report),
        }
        return sample, knowledge, told

    def _journal_path(self) -> Path:
        teacher = content_hash([self.name, self.inputs["address"]])
        name = "".join(letter if letter.isalnum() else "-" for letter in self.name)
        return self.store.root / "journals" / f"{name[-40:]}-{teacher[:8]}.jsonl"


def _annotated(sessions: Sequence[Session]) -> list[Session]:
    pool = [session for session in sessions if session.bundles is not None]
    if not any(session.bundles for session in pool):
        raise DataError(
            f"none of {len(sessions)} sessions has gold bundles",
            hint="knowledge is distilled from annotated sessions",
        )
    return pool


def _named_lm(config: DistillConfig) -> Any:
    """The LM teacher that a config names; None for the annotation teacher."""
    if config.teacher == ANNOTATION:
        for name in ("api_base", "max_tokens", "max_cost"):
            if getattr(config, name) is not None:
                raise SettingError(f"{name} is for LM teachers: the annotation teacher calls none")
        return None
    from routedk.programs.teachers.named_lm import teacher_lm

    return teacher_lm(config)


def _read_scores(config: DistillConfig) -> dict[str, float] | None:
    if config.scores is None:
        return None
    from routedk.programs.sampling.difficulty import read_scores

    return read_scores(config.scores)


def _needs_scores(
    config: DistillConfig, pool: Sequence[Session], scores: Mapping[str, float] | None
) -> bool:
    from routedk.programs.sampling.sampling import sample_size

    takes_all = sample_size(len(pool), config.ratio) == len(pool)
    return config.strategy == "difficulty" and scores is None and not takes_all


def _sample(
    pool: list[Session], config: DistillConfig, scores: Mapping[str, float] | None
) -> list[Session]:
    """The sessions to distill from, in the order of the pool."""
    from routedk.programs.sampling.sampling import make_strategy, sample_sessions, sample_size

    if sample_size(len(pool), config.ratio) == len(pool):
        return pool
    strategy = make_strategy(config.strategy, seed=config.seed, scores=scores)
    taken = {session.id for session in sample_sessions(strategy, pool, config.ratio)}
    return [session for session in pool if session.id in taken]


def _warn(told: Any) -> None:
    """Log what an LM teacher's run came to, and what went wrong in it."""
    if "spent" not in told:
        return
    spent, report = told["spent"], told["report"]
    cost = "unknown" if spent["cost"] is None else f"{spent['cost']:.4f} dollars"
    logger.info(
        "%s: %d calls, %d tokens, cost %s; %d answers were in the journal",
        *(told["teacher"], spent["calls"], spent["tokens"], cost, told["replayed"]),
    )
    if report["dropped_thoughts"]:
        count = len(report["dropped_thoughts"])
        logger.info("%d thoughts were dropped: gold does not follow from them", count)
    if report["quarantined"]:
        steps = Counter(record["step"] for record in report["quarantined"])
        counts = ", ".join(f"{count} of {step}s" for step, count in steps.items())
        logger.warning("sessions were left out, %s: see %s", counts, REPORT)
    if report["stopped"]:
        logger.warning("not all calls were made: %s", report["stopped"])
