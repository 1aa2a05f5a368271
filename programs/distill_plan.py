"""What `distill` would ask a language model: counted, or written as a batch of requests."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from routedk.errors import SettingError
from routedk.files import write_jsonl_records
from routedk.programs.distill import make_knowledge, sampled, session_pool
from routedk.programs.sampling.difficulty import read_scores
from routedk.programs.teachers.config import DistillConfig
from routedk.programs.teachers.named_lm import teacher_lm
from routedk.types import Session

if TYPE_CHECKING:
    from routedk.programs.journal.budget import Tally


def plan_distill(
    sessions: Sequence[Session], config: DistillConfig | None = None
) -> dict[str, "Tally"]:
    """Estimate how many calls, tokens and dollars distilling takes, without asking anything.

    Answers are assumed to be of typical size. A session without a mistake needs fewer calls.

    Args:
        sessions: Training sessions.
        config: All settings.

    Returns:
        The total of the calls of each step of an LM teacher; empty if no language model is asked.

    Raises:
        DataError: The annotation teacher has no gold bundles, or there are no sessions.
    """
    config = config or DistillConfig()
    asked = teacher_lm(config) is not None
    pool = session_pool(sessions, config, asked=asked)
    if not asked:
        return {}
    from routedk.programs.teachers.asker import Asker
    from routedk.programs.teachers.plan import PlanEngine

    engine = PlanEngine()
    scores = None if config.scores is None else read_scores(config.scores)
    asker = Asker(engine.lm, threads=config.threads)
    # Its answers are made up; no real session will be left out because of them.
    asker.level = logging.DEBUG
    make_knowledge(pool, config, scores, asker)
    return engine.steps(config.teacher)


def write_requests(
    sessions: Sequence[Session], path: str | Path, config: DistillConfig | None = None
) -> int:
    """Write the requests that ask an LM teacher for its answers, as an OpenAI batch.

    ``DistillConfig(answers=...)`` reads the batch's result file.

    Args:
        sessions: Training sessions.
        path: The JSONL file, one request per sampled session.
        config: Names the teacher and the sample.

    Returns:
        The number of requests.

    Raises:
        SettingError: The config names no LM teacher.
        DataError: There are no sessions, or the file cannot be written.
    """
    config = replace(config or DistillConfig(), formats=("answer",))
    lm = teacher_lm(config)
    if lm is None:
        raise SettingError("requests are for a language model: name it as teacher, without answers")
    scores = None if config.scores is None else read_scores(config.scores)
    import litellm

    from routedk.programs.teachers.answer_distiller import statement_messages

    model, *_ = litellm.get_llm_provider(config.teacher)
    names = ("temperature", "max_tokens", "max_completion_tokens")
    options = {name: lm.kwargs[name] for name in names if lm.kwargs.get(name) is not None}
    sample = sampled(session_pool(sessions, config, asked=True), config, scores)
    requests = (
        {
            "custom_id": session.id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": statement_messages(session), **options},
        }
        for session in sample
    )
    write_jsonl_records(path, requests)
    return len(sample)
