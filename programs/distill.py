"""`distill`: knowledge from training sessions, by a language model, recorded answers, or gold."""

import hashlib
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
from routedk.files import open_file, write_json
from routedk.programs.lm_identity import lm_identity
from routedk.programs.sampling.difficulty import difficulty_scores, read_scores, score_sessions
from routedk.programs.sampling.sampling import Scores, sample_sessions
from routedk.programs.teachers.config import ANNOTATION, DistillConfig, OnStep
from routedk.programs.teachers.named_lm import check_key, teacher_lm
from routedk.types import KnowledgeBase, Session

if TYPE_CHECKING:
    from routedk.programs.teachers.asker import Asker


__all__ = ["DistillConfig", "distill", "distill_artifact"]

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
    held_out: Sequence[Session] = (),
) -> KnowledgeBase:
    """Distill patterns, rules, thoughts and a teacher's answers from training sessions.

    The annotation teacher works from gold bundles, without a network or a language model. An LM
    teacher needs no gold: without it, the teacher states bundles itself (see `TeacherAnswer`), and
    its rules and thoughts are made from these. Its answers are written to a journal in the store as
    they arrive: a killed run resumes when it is started again, and pays for no answer twice.
    Answers recorded elsewhere (``DistillConfig(answers=...)``) replace a teacher. The same
    sessions, config and model return the knowledge already in the store.

    Example:
        >>> from routedk import DistillConfig, distill, load_sessions
        >>> knowledge = distill(load_sessions("demo")[:40], DistillConfig(max_rules=2))
        >>> len(knowledge.rules), len(knowledge.thoughts)
        (2, 40)

    Args:
        sessions: Training sessions, with or without gold bundles.
        config: All settings.
        lm: A ``dspy.LM`` that replaces the teacher named in the config.
        student: Makes the base model, e.g. `routedk.student_lm`. With the strategy ``difficulty``
            it answers every session zero-shot if there is neither an LM teacher nor a file of
            scores; otherwise it is not called.
        store: Where knowledge and answers are kept; None for the default store.
        on_step: Called from any thread after each session of an LM teacher's step, with its name
            (``score``, ``rule``, ``thought`` or ``answer``), sessions done, and sessions in total.
        held_out: The data set's other sessions: recorded answers to them are left out.

    Raises:
        DataError: The annotation teacher has no gold bundles, no recorded answer can be used, or
            another process is asking the same teacher.
        SettingError: Settings do not fit the teacher.
        LMError: The teacher failed in a way that would affect every session.
    """
    made = distill_artifact(
        sessions, config, lm=lm, student=student, store=store, on_step=on_step, held_out=held_out
    )
    return read_knowledge(made.folder / KNOWLEDGE)


def distill_artifact(
    sessions: Sequence[Session],
    config: DistillConfig | None = None,
    *,
    lm: Any = None,
    student: Callable[[], Any] | None = None,
    store: ArtifactStore | str | Path | None = None,
    on_step: OnStep | None = None,
    held_out: Sequence[Session] = (),
) -> Artifact:
    """Distill as `distill` does; returns the artifact: ``knowledge.jsonl`` and ``report.json``.

    The arguments are those of `distill`.
    """
    config = config or DistillConfig()
    store = ArtifactStore.of(store)
    if config.answers and lm is not None:
        raise SettingError("answers take the place of a language model: give one of the two")
    named = lm is None
    lm = teacher_lm(config) if named else lm
    pool = session_pool(sessions, config, asked=lm is not None)
    scores = None if config.scores is None else read_scores(config.scores)
    if lm is None and needs_scores(config):
        if student is None:
            raise SettingError(
                "strategy 'difficulty' needs scores: give a file of scores, or an LM teacher or "
                "student=student_lm, which answers every session first"
            )
        base = student()
        with closing(base.engine):
            scores = read_scores(score_sessions(pool, base, store=store))
    teacher = {"model": config.teacher, "address": ""} if lm is None else lm_identity(lm)
    inputs: dict[str, Any] = {
        "sessions": content_hash([session_to_record(session) for session in pool]),
        "scores": scores and content_hash(scores),
        "teacher": teacher,
    }
    if config.answers:
        inputs["answers"] = [file_hash(path) for path in config.answers]
        inputs["held_out"] = content_hash([session_to_record(session) for session in held_out])
    # A run with a higher budget continues the one that a lower budget stopped.
    run = Recipe(stage="knowledge", inputs=inputs, settings=config.recorded).key
    limits = (config.max_tokens, config.max_cost)

    def make(out: Path, work: Path) -> None:
        happened: dict[str, Any] = {}
        if lm is None and config.answers:
            sample, knowledge, happened = read_recorded(pool, config, scores, held_out)
            made: tuple[Any, ...] = (*knowledge.answers, *knowledge.rules)
            named_in = dict.fromkeys(one.provenance.teacher for one in made)
            happened["teacher"] = {"model": " + ".join(named_in), "address": ""}
        elif lm is None:
            sample, knowledge = make_knowledge(pool, config, scores)
        else:
            from routedk.programs.journal.journal import open_journal
            from routedk.programs.journal.journaled_lm import journaled_lm
            from routedk.programs.teachers.asker import Asker

            if named and config.api_base is None:
                check_key(config.teacher)
            with open_journal(_journal_path(store, teacher), run, *limits) as journal:
                asker = Asker(journaled_lm(lm, journal), threads=config.threads, on_step=on_step)
                sample, knowledge = make_knowledge(pool, config, scores, asker)
            happened = {
                "spent": asdict(journal.spent),
                "quarantined": asker.quarantined,
                "dropped": asker.dropped,
                "stopped": asker.stopped,
            }
        write_knowledge(knowledge, out / KNOWLEDGE)
        counts = {"sessions": len(sample)}
        for kind in ("patterns", "rules", "thoughts", "answers"):
            counts[kind] = len(getattr(knowledge, kind))
        told = {"teacher": teacher, "config": config.recorded, "counts": counts, **happened}
        write_json(out / REPORT, {**told, "sessions": [session.id for session in sample]})

    settings = {**config.recorded, "budget": limits}
    return store.obtain(Recipe(stage="knowledge", inputs=inputs, settings=settings), make)


def _journal_path(store: ArtifactStore, teacher: Mapping[str, str]) -> Path:
    """One journal per model and address: the model's options are part of the questions."""
    name = "".join(c if c.isalnum() else "-" for c in teacher["model"])[-40:]
    key = content_hash([teacher["model"], teacher["address"]])[:8]
    return store.root / "journals" / f"{name}-{key}.jsonl"


def file_hash(path: Path) -> list[str]:
    """A file's name, which the report shows, and the hash of its content."""
    with open_file(path) as file:
        return [str(path), hashlib.file_digest(file, "sha256").hexdigest()]


def session_pool(
    sessions: Sequence[Session], config: DistillConfig, *, asked: bool
) -> list[Session]:
    """The sessions to sample from: only annotated ones if knowledge is made from gold alone.

    Args:
        sessions: Training sessions.
        config: All settings.
        asked: Whether a language model is asked.
    """
    annotated = [session for session in sessions if session.bundles is not None]
    learned = any(session.bundles for session in annotated)
    if not asked and not config.answers:
        if not learned:
            raise DataError(
                f"none of {len(sessions)} sessions has gold bundles, which the annotation teacher "
                "works from",
                hint="name a language model with --teacher, or recorded answers with --answers",
            )
        if "answer" in config.formats:
            raise SettingError(
                "format 'answer': the annotation teacher states no bundles of its own: name a "
                "language model as teacher, or recorded answers"
            )
    if not sessions:
        raise DataError("there is no session to distill from")
    if learned and not config.answers and "answer" not in config.formats:
        return annotated
    if needs_scores(config) and (not learned or len(annotated) < len(sessions)):
        raise SettingError(
            "strategy 'difficulty' compares answers with gold bundles, and not every session is "
            "annotated: give a file of scores"
        )
    return list(sessions)


def needs_scores(config: DistillConfig) -> bool:
    """Whether sampling needs scores that no file provides."""
    return config.strategy == "difficulty" and config.scores is None and config.ratio < 1


def sampled(pool: Sequence[Session], config: DistillConfig, scores: Scores | None) -> list[Session]:
    """The sample of a pool that a config asks for."""
    return sample_sessions(pool, config.strategy, config.ratio, seed=config.seed, scores=scores)


def make_knowledge(
    pool: Sequence[Session],
    config: DistillConfig,
    scores: Scores | None,
    asker: "Asker | None" = None,
) -> tuple[list[Session], KnowledgeBase]:
    """The sample, and the knowledge that the annotation teacher (with an asker: an LM) makes."""
    from routedk.programs.teachers.annotation import annotation_knowledge

    # A truncated answer needs no warning: answers are checked when they are used.
    logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)
    if asker is not None and needs_scores(config):
        scores = difficulty_scores(pool, asker)
    sample = sampled(pool, config, scores)
    if asker is None:
        return sample, annotation_knowledge(sample, config)
    from routedk.programs.teachers.lm_teacher import lm_knowledge

    return sample, lm_knowledge(sample, config, asker)


def read_recorded(
    pool: Sequence[Session],
    config: DistillConfig,
    scores: Scores | None,
    held_out: Sequence[Session],
) -> tuple[list[Session], KnowledgeBase, dict[str, Any]]:
    """The sample, the knowledge in its recorded answers, and a report of what was not used."""
    from routedk.programs.teachers.answer_knowledge import knowledge_of_answers
    from routedk.programs.teachers.recorded import RecordedAnswers

    sample = sampled(pool, config, scores)
    teacher = "" if config.teacher == ANNOTATION else config.teacher
    recorded = RecordedAnswers(pool, sample, held_out, teacher)
    recorded.read(config.answers)
    made = knowledge_of_answers(sample, recorded.answers, recorded.rules, config)
    if config.makes("rule") and len(recorded.rules) > len(made.rules):
        more = f"rules beyond max_rules={config.max_rules}"
        recorded.left_out[more] = len(recorded.rules) - len(made.rules)
    told = {name: getattr(recorded, name) for name in ("bad_lines", "left_out", "dropped")}
    return sample, made, told
