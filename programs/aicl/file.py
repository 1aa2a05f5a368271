"""An AICL program on disk: one JSON file with settings, sessions and lessons, without its LM."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from routedk.data.records import session_from_record, session_to_record
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json, write_json
from routedk.programs.aicl.lessons import Lesson, LessonBook, Turn
from routedk.programs.aicl.program import AICL
from routedk.programs.prompting.layout import layout_hash
from routedk.programs.saved_record import checked_record
from routedk.types import Item, Session

KIND = "routedk.aicl"
SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Predictor(_Strict):
    instruction: str
    demos: list[dict[str, str]]


class _Turn(_Strict):
    question: str
    answer: str


class _Lesson(_Strict):
    voice: str
    session_id: str
    turns: list[_Turn]
    intents: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    rules: list[str]


class _Program(_Strict):
    kind: Literal["routedk.aicl"]
    schema_version: Literal[1]
    layout: str
    k: Annotated[int, Field(ge=1)]
    retriever: str
    self_corrections: Annotated[int, Field(ge=0)]
    use_rules: bool
    share: bool
    predictors: dict[str, _Predictor]
    sessions: list[dict[str, JsonValue]]
    lessons: list[_Lesson]


def save_aicl(program: AICL, path: str | Path) -> None:
    """Write a program as JSON, atomically; its LM is not saved.

    Args:
        program: The program. Its training sessions are saved with titles and gold.
        path: Where to; an existing file is replaced.
    """
    predictors = {
        name: _Predictor(
            instruction=predictor.signature.instructions,
            demos=[{key: str(value) for key, value in demo.items()} for demo in predictor.demos],
        )
        for name, predictor in program.named_predictors()
    }
    saved = _Program(
        kind="routedk.aicl",
        schema_version=1,
        layout=layout_hash(),
        k=program.knowledge.k,
        retriever=program.knowledge.retriever,
        self_corrections=program.talk.corrections,
        use_rules=program.use_rules,
        share=program.share,
        predictors=predictors,
        sessions=[_shown(session) for session in program.knowledge.sessions],
        lessons=[_lesson(key[0], lesson) for key, lesson in program.lessons.known().items()],
    )
    write_json(path, saved.model_dump())


def load_aicl(path: str | Path) -> AICL:
    """Read a program; give it an LM with ``dspy.context(lm=...)`` or ``set_lm``.

    Raises:
        ArtifactError: The file is missing, damaged, of another kind or schema version, or was
            saved under another prompt layout.
    """
    try:
        stored = _checked(read_json(path), path)
        program = AICL(
            [session_from_record(record, path=path) for record in stored.sessions],
            k=stored.k,
            retriever=stored.retriever,
            self_corrections=stored.self_corrections,
            use_rules=stored.use_rules,
            share=stored.share,
        )
    except (DataError, SettingError) as error:
        raise ArtifactError(f"{path}: the program cannot be read: {error}") from None
    predictors = dict(program.named_predictors())
    if predictors.keys() != stored.predictors.keys():
        raise ArtifactError(
            f"{path}: it has the predictors {sorted(stored.predictors)}, this version "
            f"{sorted(predictors)} (make the program again)"
        )
    for name, predictor in predictors.items():
        kept = stored.predictors[name]
        predictor.signature = predictor.signature.with_instructions(kept.instruction)
        predictor.demos = list(kept.demos)
    lessons = {(kept.voice, kept.session_id): _read_lesson(kept) for kept in stored.lessons}
    program.lessons = LessonBook(lessons)
    return program


def _shown(session: Session) -> dict[str, JsonValue]:
    """The record of a session with what a dialogue needs of it: titles and gold."""
    items = tuple(Item(id=item.id, title=item.title) for item in session.items)
    return session_to_record(Session(session.id, items, session.bundles))


def _lesson(voice: str, lesson: Lesson) -> _Lesson:
    return _Lesson(
        voice=voice,
        session_id=lesson.session_id,
        turns=[_Turn(**asdict(turn)) for turn in lesson.turns],
        intents=[list(pair) for pair in lesson.intents],
        rules=list(lesson.rules),
    )


def _read_lesson(kept: _Lesson) -> Lesson:
    return Lesson(
        session_id=kept.session_id,
        turns=tuple(Turn(**turn.model_dump()) for turn in kept.turns),
        intents=tuple((items, intent) for items, intent in kept.intents),
        rules=tuple(kept.rules),
    )


def _checked(record: object, path: str | Path) -> _Program:
    program = checked_record(
        record,
        path,
        _Program,
        kind=KIND,
        version=SCHEMA_VERSION,
        what="an AICL program",
        writer="AICL.save",
        remedy="make the program again",
    )
    if program.layout != layout_hash():
        raise ArtifactError(
            f"{path}: saved under prompt layout {program.layout}, this version renders "
            f"{layout_hash()} (make the program again)"
        )
    return program
