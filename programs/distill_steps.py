"""From sessions to knowledge: which are taken, and what each kind of teacher makes of them."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from routedk.errors import DataError, SettingError
from routedk.programs.sampling.difficulty import difficulty_scores
from routedk.programs.sampling.sampling import sample_sessions
from routedk.programs.teachers.config import ANNOTATION, DistillConfig
from routedk.types import KnowledgeBase, Session

if TYPE_CHECKING:
    from routedk.programs.teachers.asker import Asker


def session_pool(
    sessions: Sequence[Session], config: DistillConfig, *, asked: bool
) -> list[Session]:
    """The sessions that are sampled from: annotated ones where knowledge is made of gold alone.

    Args:
        sessions: Training sessions.
        config: All settings.
        asked: A language model is asked.
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
    """Whether sampling takes scores that no file gives."""
    return config.strategy == "difficulty" and config.scores is None and config.ratio < 1


def sampled(
    pool: Sequence[Session], config: DistillConfig, scores: Mapping[str, float] | None
) -> list[Session]:
    """The sessions of a pool that a config takes."""
    return sample_sessions(pool, config.strategy, config.ratio, seed=config.seed, scores=scores)


def make_knowledge(
    pool: Sequence[Session],
    config: DistillConfig,
    scores: Mapping[str, float] | None,
    asker: "Asker | None" = None,
) -> tuple[list[Session], KnowledgeBase]:
    """The sample, and what the annotation teacher or, with an asker, an LM teacher makes of it."""
    from routedk.programs.teachers.annotation import annotation_knowledge

    # An answer that was cut short needs no warning: its use is checked.
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
    scores: Mapping[str, float] | None,
    held_out: Sequence[Session],
) -> tuple[list[Session], KnowledgeBase, dict[str, Any]]:
    """The sample, what recorded answers hold of it, and what they hold that is not used."""
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
