"""How difficult sessions are: the scores of a model's answers, and their file.

The file is JSONL, one session a line::

    {"session_id": "s1", "score": 0.4583}
"""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routedk.artifacts import ArtifactStore, Recipe, content_hash
from routedk.data.records import session_to_record
from routedk.errors import DataError, SettingError
from routedk.eval.matched import matched_f1
from routedk.files import read_jsonl, write_jsonl_records
from routedk.programs.lm_identity import address_of, lm_identity
from routedk.types import Session, bundle_sets

if TYPE_CHECKING:
    from routedk.programs.teachers.lm_teacher import OnStep

_SCORES = "scores.jsonl"


def difficulty_scores(
    sessions: Sequence[Session],
    lm: Any,
    *,
    threads: int = 16,
    on_step: "OnStep | None" = None,
) -> dict[str, float]:
    """Let a model answer every session zero-shot: the lower the score, the harder the session.

    A session whose answer cannot be had counts as difficult.

    Args:
        sessions: Sessions with gold, ids distinct.
        lm: A ``dspy.LM``: the base model, or the teacher.
        threads: Calls under way at once, at least 1.
        on_step: Called from any thread after each session, with the step ``answer``.

    Returns:
        Matched F1 by session id, in [0, 1], in the order of the sessions.

    Raises:
        SettingError: A session is not annotated, so that its answer cannot be scored.
        LMError: The model failed in a way that would meet every session.
    """
    import dspy

    from routedk.programs.batch import call_all
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.teachers.session_errors import is_session_error

    blind = [session.id for session in sessions if session.bundles is None]
    if blind:
        raise SettingError(
            f"{len(blind)} sessions have no gold to score answers by, e.g. {', '.join(blind[:5])}"
        )
    program, done = BundleGenerator(), count(1)

    def score(session: Session) -> float:
        try:
            return matched_f1(session.gold, bundle_sets(program(session=session).bundles))
        except Exception as error:
            if not is_session_error(error):
                raise
            return 0.0
        finally:
            if on_step is not None:
                on_step("answer", next(done), len(sessions))

    with dspy.context(lm=lm):
        scores = call_all(score, sessions, num_threads=threads)
    return {session.id: value for session, value in zip(sessions, scores, strict=True)}


def score_sessions(
    sessions: Sequence[Session],
    lm: Any,
    *,
    threads: int = 16,
    store: ArtifactStore | str | Path | None = None,
) -> Path:
    """The file of a model's `difficulty_scores`, made once: for ``DistillConfig(scores=...)``.

    Args:
        sessions: As there.
        lm: As there.
        threads: As there.
        store: Where the file is kept; None for the default store.
    """

    def make(out: Path, work: Path) -> None:
        write_scores(out / _SCORES, difficulty_scores(sessions, lm, threads=threads))

    recipe = Recipe(
        stage="scores",
        inputs={
            "sessions": content_hash([session_to_record(session) for session in sessions]),
            "lm": lm_identity(lm),
            "address": address_of(lm),
        },
        settings={},
    )
    return ArtifactStore.of(store).obtain(recipe, make).folder / _SCORES


def write_scores(path: str | Path, scores: Mapping[str, float]) -> None:
    """Write scores by session id as JSONL, atomically; an existing file is replaced."""
    write_jsonl_records(
        path, ({"session_id": name, "score": float(score)} for name, score in scores.items())
    )


def read_scores(path: str | Path) -> dict[str, float]:
    """Read scores by session id, in the order of the file.

    Raises:
        DataError: The file cannot be read, or a line has other keys, no session id, no score in
            [0, 1], or a session that a line before it has; the message names file and line.
    """
    scores: dict[str, float] = {}
    for line, record in read_jsonl(path):
        problem = _problem(record, scores)
        if problem:
            raise DataError(problem, path=path, line=line, hint="fix or remove this line")
        scores[record["session_id"]] = float(record["score"])
    return scores


def _problem(record: Mapping[str, Any], known: Mapping[str, float]) -> str:
    if record.keys() != {"session_id", "score"}:
        return f"keys are {', '.join(record) or 'none'}, not session_id, score"
    name, score = record["session_id"], record["score"]
    if not isinstance(name, str):
        return f"session_id is {name!r}, not a text"
    if name in known:
        return f"session {name!r} has a score already"
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        return f"score is {score!r}, not a number in [0, 1]"
    return ""
