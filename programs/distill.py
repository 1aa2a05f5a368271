"""`distill`: knowledge from training sessions, by a language model or from annotations."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routedk.artifacts import Artifact, ArtifactStore, Recipe, content_hash
from routedk.data.knowledge_file import read_knowledge, write_knowledge
from routedk.data.records import session_to_record
from routedk.errors import DataError, SettingError
from routedk.files import write_json
from routedk.programs.lm_identity import lm_identity
from routedk.programs.sampling.difficulty import difficulty_scores, read_scores, score_sessions
from routedk.programs.sampling.sampling import sample_sessions
from routedk.programs.teachers.config import ANNOTATION, DistillConfig, OnStep
from routedk.programs.teachers.named_lm import check_key, teacher_lm
from routedk.types import KnowledgeBase, Session

if TYPE_CHECKING:
    from routedk.programs.journal.budget import Tally
    from routedk.programs.teachers.asker import Asker

__all__ = ["DistillConfig", "distill", "distill_artifact", "plan_distill"]

KNOWLEDGE = "knowledge.jsonl"
REPORT = "report.json"


def distill(
    sessions: Sequence[Session],
    config: DistillConfig | None = None,
    *,
    lm: Any = None,
    student: Callable[[], Any] | None = None,
    store: ArtifactStore | str | Path | None = None,
    on_step: OnStep | None = None,
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
        sessions: Training sessions; those without annotations add nothing.
        config: All settings.
        lm: A ``dspy.LM`` that takes the place of the teacher that the config names.
        student: Makes the base model, e.g. `routedk.student_lm`. Under the strategy ``difficulty``
            it answers every session zero-shot where there is neither an LM teacher nor a file of
            scores; otherwise it is not called.
        store: Where knowledge and answers are kept; None for the default store.
        on_step: Called from any thread after each session of an LM teacher's step: its name
            (``answer``, ``rule`` or ``thought``), sessions done, and how many there are.

    Raises:
        DataError: No session has gold bundles, or another process is asking the same teacher.
        SettingError: Settings do not fit the teacher.
        LMError: The teacher failed in a way that would affect every session.
    """
    made = distill_artifact(sessions, config, lm=lm, student=student, store=store, on_step=on_step)
    return read_knowledge(made.folder / KNOWLEDGE)


def distill_artifact(
    sessions: Sequence[Session],
    config: DistillConfig | None = None,
    *,
    lm: Any = None,
    student: Callable[[], Any] | None = None,
    store: ArtifactStore | str | Path | None = None,
    on_step: OnStep | None = None,
) -> Artifact:
    """Distill as `distill` does; returns the artifact: ``knowledge.jsonl`` and ``report.json``.

    Args:
        sessions: As for `distill`.
        config: As for `distill`.
        lm: As for `distill`.
        student: As for `distill`.
        store: As for `distill`.
        on_step: As for `distill`.
    """
    config = config or DistillConfig()
    store = ArtifactStore.of(store)
    pool = _annotated(sessions)
    named = lm is None
    lm = teacher_lm(config) if named else lm
    scores = None if config.scores is None else read_scores(config.scores)
    if lm is None and _needs_scores(config):
        if student is None:
            raise SettingError(
                "strategy 'difficulty' needs scores: give a file of scores, or an LM teacher or "
                "student=student_lm, which answers every session first"
            )
        base = student()
        with closing(base.engine):
            scores = read_scores(score_sessions(pool, base, store=store))
    teacher = {"model": ANNOTATION, "address": ""} if lm is None else lm_identity(lm)
    inputs = {
        "sessions": content_hash([session_to_record(session) for session in pool]),
        "scores": scores and content_hash(scores),
        "teacher": teacher,
    }
    # A run with a higher budget continues the one that a lower budget stopped.
    run = Recipe(stage="knowledge", inputs=inputs, settings=config.recorded).key
    limits = (config.max_tokens, config.max_cost)

    def make(out: Path, work: Path) -> None:
        happened: dict[str, Any] = {}
        if lm is None:
            sample, knowledge = _make(pool, config, scores)
        else:
            from routedk.programs.journal.journal import open_journal
            from routedk.programs.journal.journaled_lm import journaled_lm
            from routedk.programs.teachers.asker import Asker

            if named and config.api_base is None:
                check_key(config.teacher)
            with open_journal(_journal_path(store, teacher), run, *limits) as journal:
                asker = Asker(journaled_lm(lm, journal), threads=config.threads, on_step=on_step)
                sample, knowledge = _make(pool, config, scores, asker)
            happened = {
                "spent": asdict(journal.spent),
                "quarantined": asker.quarantined,
                "stopped": asker.stopped,
            }
        write_knowledge(knowledge, out / KNOWLEDGE)
        counts = {"sessions": len(sample)}
        for kind in ("patterns", "rules", "thoughts"):
            counts[kind] = len(getattr(knowledge, kind))
        told = {"teacher": teacher, "config": config.recorded, "counts": counts, **happened}
        write_json(out / REPORT, {**told, "sessions": [session.id for session in sample]})

    settings = {**config.recorded, "budget": limits}
    return store.obtain(Recipe(stage="knowledge", inputs=inputs, settings=settings), make)


def plan_distill(
    sessions: Sequence[Session], config: DistillConfig | None = None
) -> dict[str, "Tally"]:
    """Count about how many calls, tokens and dollars distilling takes, without asking anything.

    Answers are counted as typical ones. A session without a mistake needs fewer calls.

    Args:
        sessions: Training sessions.
        config: All settings.

    Returns:
        For each step of an LM teacher what its calls come to, with answers of typical size; empty
        for the annotation teacher, which makes no calls.

    Raises:
        DataError: No session has gold bundles.
    """
    config = config or DistillConfig()
    pool = _annotated(sessions)
    if teacher_lm(config) is None:
        return {}
    from routedk.programs.teachers.asker import Asker
    from routedk.programs.teachers.plan import PlanEngine

    engine = PlanEngine()
    scores = None if config.scores is None else read_scores(config.scores)
    asker = Asker(engine.lm, threads=config.threads)
    # Its answers are made up, and no session will be left out because of them.
    asker.level = logging.DEBUG
    _make(pool, config, scores, asker)
    return engine.steps(config.teacher)


def _journal_path(store: ArtifactStore, teacher: Mapping[str, str]) -> Path:
    """One journal for each model and address: its options are part of the questions."""
    name = "".join(c if c.isalnum() else "-" for c in teacher["model"])[-40:]
    key = content_hash([teacher["model"], teacher["address"]])[:8]
    return store.root / "journals" / f"{name}-{key}.jsonl"


def _make(
    pool: Sequence[Session],
    config: DistillConfig,
    scores: Mapping[str, float] | None,
    asker: "Asker | None" = None,
) -> tuple[list[Session], KnowledgeBase]:
    """The sample, and what the annotation teacher or, with an asker, an LM teacher makes of it."""
    from routedk.programs.teachers.annotation import annotation_knowledge

    # An answer that was cut short needs no warning: its use is checked.
    logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)
    if asker is not None and _needs_scores(config):
        scores = difficulty_scores(pool, asker)
    sample = sample_sessions(pool, config.strategy, config.ratio, seed=config.seed, scores=scores)
    if asker is None:
        return sample, annotation_knowledge(sample, config)
    from routedk.programs.teachers.lm_teacher import lm_knowledge

    return sample, lm_knowledge(sample, config, asker)


def _needs_scores(config: DistillConfig) -> bool:
    return config.strategy == "difficulty" and config.scores is None and config.ratio < 1


def _annotated(sessions: Sequence[Session]) -> list[Session]:
    pool = [session for session in sessions if session.bundles is not None]
    if not any(session.bundles for session in pool):
        raise DataError(
            f"none of {len(sessions)} sessions has gold bundles",
            hint="knowledge is distilled from annotated sessions",
        )
    return pool
