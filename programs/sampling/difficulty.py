"""How difficult sessions are: the scores of a program's answers, and their file.

The file is JSONL, one session a line::

    {"session_id": "s1", "score": 0.4583}
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from routedk.errors import DataError, SettingError
from routedk.eval.matched import matched_f1
from routedk.files import read_jsonl, write_jsonl_records
from routedk.types import Session, bundle_sets


def difficulty_scores(
    program: Callable[..., Any], sessions: Sequence[Session], num_threads: int = 16
) -> dict[str, float]:
    """Answer every session and score the answers: the lower the score, the harder the session.

    The LM is that of the program or of the surrounding ``dspy.context(lm=...)``: the student as
    it comes, or the teacher. The program should show no gold of these sessions.

    Args:
        program: A `BundleGenerator`, or any program that takes ``session=`` and answers with
            ``bundles``.
        sessions: Sessions with gold, ids distinct.
        num_threads: Calls under way at once, at least 1.

    Returns:
        Matched F1 by session id, in [0, 1], in the order of the sessions.

    Raises:
        SettingError: Nobody annotated a session, so that it cannot be scored.
    """
    from routedk.programs.batch import generate_all

    blind = [session.id for session in sessions if session.bundles is None]
    if blind:
        raise SettingError(
            f"{len(blind)} sessions have no gold to score answers by, e.g. {', '.join(blind[:5])}"
        )
    answers = generate_all(program, sessions, num_threads=num_threads)
    return {
        session.id: matched_f1(session.gold, bundle_sets(answer.bundles))
        for session, answer in zip(sessions, answers, strict=True)
    }


def write_scores(path: str | Path, scores: Mapping[str, float]) -> None:
    """Write scores as JSONL, atomically.

    Args:
        path: Where to; an existing file is replaced.
        scores: Score by session id.
    """
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
            raise DataError(problem, path=path, line=line, hint="mend or remove this line")
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
