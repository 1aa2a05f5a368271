"""An AICL program on disk: one JSON file with settings, sessions and lessons, without its LM."""

from dataclasses import asdict
from pathlib import Path

from pydantic import JsonValue

from routedk.data.records import session_from_record
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import write_json
from routedk.programs.aicl.lessons import Lesson, LessonBook
from routedk.programs.aicl.program import AICL
from routedk.programs.prompting.layout import layout_hash
from routedk.programs.saved import SCHEMA_VERSION, Record, check_layout, read_saved, shown_session

KIND = "routedk.aicl"
_REMEDY = "make the program again"


class _Predictor(Record):
    instruction: str
    demos: list[dict[str, str]]


class _Program(Record):
    kind: str
    schema_version: int
    layout: str
    k: int
    retriever: str
    self_corrections: int
    use_rules: bool
    # Always true; once lessons could be kept from other sessions.
    share: bool
    predictors: dict[str, _Predictor]
    sessions: list[dict[str, JsonValue]]
    lessons: list[Lesson]


def save_aicl(program: AICL, path: str | Path) -> None:
    """Write a program as JSON, atomically; its LM is not saved.

    Args:
        program: The program. Its training sessions are saved with titles and gold.
        path: Where to; an existing file is replaced.
    """
    record = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "layout": layout_hash(),
        "k": program.knowledge.k,
        "retriever": program.knowledge.retriever,
        "self_corrections": program.self_corrections,
        "use_rules": program.use_rules,
        "share": True,
        "predictors": {
            name: {
                "instruction": predictor.signature.instructions,
                "demos": [{key: str(value) for key, value in d.items()} for d in predictor.demos],
            }
            for name, predictor in program.saved_predictors().items()
        },
        "sessions": [shown_session(session) for session in program.knowledge.sessions],
        "lessons": [asdict(lesson) for _, lesson in sorted(program.lessons.known.items())],
    }
    write_json(path, record)


def load_aicl(path: str | Path) -> AICL:
    """Read a program; give it an LM with ``dspy.context(lm=...)`` or ``set_lm``.

    Raises:
        ArtifactError: The file is missing, damaged, of another kind or schema version, or was
            saved under another prompt layout.
    """
    what = "an AICL program that AICL.save wrote"
    saved = read_saved(path, _Program, kind=KIND, what=what, remedy=_REMEDY)
    check_layout(path, saved.layout, layout_hash(), _REMEDY)
    try:
        program = AICL(
            [session_from_record(record, path=path) for record in saved.sessions],
            k=saved.k,
            retriever=saved.retriever,
            self_corrections=saved.self_corrections,
            use_rules=saved.use_rules,
        )
    except (DataError, SettingError) as error:
        raise ArtifactError(f"{path}: the program cannot be used: {error}") from None
    predictors = program.saved_predictors()
    if predictors.keys() != saved.predictors.keys():
        raise ArtifactError(
            f"{path}: it has the predictors {sorted(saved.predictors)}, this version "
            f"{sorted(predictors)} ({_REMEDY})"
        )
    for name, predictor in predictors.items():
        kept = saved.predictors[name]
        predictor.signature = predictor.signature.with_instructions(kept.instruction)
        predictor.demos = list(kept.demos)
    program.lessons = LessonBook(saved.lessons)
    return program
