"""The difficulty of sessions: the scores of a model's answers, and their file.

The file is JSONL, one session per line::

    {"session_id": "s1", "score": 0.4583}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from routedk.artifacts import ArtifactStore, Recipe, content_hash
from routedk.data.records import session_to_record
from routedk.data.validation import checked
from routedk.errors import DataError
from routedk.files import read_jsonl, write_jsonl_records
from routedk.programs.lm_identity import lm_identity
from routedk.types import Session, bundle_sets

if TYPE_CHECKING:
    from routedk.programs.teachers.asker import Asker

_SCORES = "scores.jsonl"


class _Score(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    session_id: str
    score: float = Field(ge=0, le=1)


_SCORE = TypeAdapter(_Score)


def difficulty_scores(sessions: Sequence[Session], asker: "Asker") -> dict[str, float]:
    """Let a model answer every session zero-shot: the lower the score, the harder the session.

    A session for which no answer can be obtained scores 0.

    Args:
        sessions: Sessions with gold and distinct ids.
        asker: Asks the model; its step is ``score``.

    Returns:
        Matched F1 by session id, in [0, 1], in the order of the sessions.

    Raises:
        BudgetError: The model is a teacher whose budget is used up.
        RouteDKError: The model refuses every session.
        LMError: It failed in a way that would affect every session.
    """
    from routedk.eval.protocols import matched_f1
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.journal.budget import BudgetError

    program = BundleGenerator()
    answers = asker.ask("score", lambda session: program(session=session), sessions)
    if asker.stopped:
        raise BudgetError(asker.stopped)
    scores = dict.fromkeys((session.id for session in sessions), 0.0)
    for session, found, _ in answers:
        scores[session.id] = matched_f1(session.gold, bundle_sets(found.bundles))
    return scores


def score_sessions(
    sessions: Sequence[Session], lm: Any, *, store: ArtifactStore | str | Path | None = None
) -> Path:
    """Score a model's answer to each session; returns the file for ``DistillConfig(scores=)``.

    Args:
        sessions: Training sessions; those without annotations get no score.
        lm: The base model.
        store: Where the file is kept; None for the default store.
    """
    pool = [session for session in sessions if session.bundles is not None]

    def make(out: Path, work: Path) -> None:
        from routedk.programs.teachers.asker import Asker

        write_scores(out / _SCORES, difficulty_scores(pool, Asker(lm)))

    sessions_hash = content_hash([session_to_record(session) for session in pool])
    inputs = {"sessions": sessions_hash, "lm": lm_identity(lm)}
    recipe = Recipe(stage="scores", inputs=inputs, settings={})
    return ArtifactStore.of(store).obtain(recipe, make).folder / _SCORES


def write_scores(path: str | Path, scores: Mapping[str, float]) -> None:
    """Write scores by session id as JSONL, atomically; an existing file is replaced."""
    write_jsonl_records(path, ({"session_id": k, "score": float(v)} for k, v in scores.items()))


def read_scores(path: str | Path) -> dict[str, float]:
    """Read scores by session id, in the order of the file.

    Raises:
        DataError: The file cannot be read, or a line has other keys, no session id, no score in
            [0, 1], or a session scored before; the message names file and line.
    """
    scores: dict[str, float] = {}
    for line, record in read_jsonl(path):
        made = checked(_SCORE, record, path=path, line=line)
        if made.session_id in scores:
            problem = f"session {made.session_id!r} has a score already"
            raise DataError(problem, path=path, line=line, hint="keep one of the two")
        scores[made.session_id] = made.score
    return scores
