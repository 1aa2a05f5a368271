"""A compiled program on disk: one ``program.json`` with state and architecture, without its LM."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter

from routedk.data.records import session_from_record, session_to_record
from routedk.data.validation import checked
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json
from routedk.programs.grouping.similar_intents import SimilarIntents
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.utilization import UtilizationName
from routedk.programs.prompting.bundle_adapter import layout_demo, naming_demo
from routedk.programs.prompting.context import NeighbourStyle
from routedk.programs.prompting.layout import layout_hash
from routedk.programs.prompting.naming import naming_hash, naming_instruction
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.types import Item, Pattern, Session

if TYPE_CHECKING:
    from routedk.programs.generator import BundleGenerator

_REMEDY = "compile the program again"
# Earlier layouts, and the later one that renders all that they could as they did.
_RENDERED_BY = {"117a13036d43ef34": "32b57f592916a2ba"}


def _pattern_values(record: object) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError("a pattern is an object")
    values = {name: value for name, value in record.items() if name != "teacher"}
    return {**values, "provenance": {"teacher": record.get("teacher")}}


class _Knowledge(BaseModel):
    model_config = ConfigDict(extra="forbid")

    patterns: tuple[Annotated[Pattern, BeforeValidator(_pattern_values)], ...] = ()
    patterns_shown: int | None = None
    rules: tuple[str, ...]
    rules_shown: int | None
    k: int
    style: NeighbourStyle
    show_thoughts: bool
    retriever: str
    sessions: list[dict[str, Any]]
    thoughts: dict[str, str]


class SavedNaming(BaseModel):
    """How a program asks for the intent of one bundle."""

    model_config = ConfigDict(extra="forbid")

    layout: str = Field(default_factory=naming_hash)
    instruction: str = Field(default_factory=naming_instruction)
    demos: list[dict[str, str]] = []
    why: bool = False


class SavedProgram(BaseModel):
    """The content of a program's file."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["routedk.program"]
    schema_version: Literal[1]
    layout: str
    fields: list[str]
    instruction: str
    demos: list[dict[str, str]]
    knowledge: _Knowledge
    naming: SavedNaming = Field(default_factory=SavedNaming)
    grouping: SimilarIntents | None
    trials: list[dict[str, JsonValue]]
    utilization: UtilizationName | None = None


def program_record(program: "BundleGenerator") -> dict[str, Any]:
    """A program as JSON.

    In it are its knowledge, instructions, demos and trials; never its LM or a `Grouping`. Training
    sessions and thoughts that it does not show are left out, and so are the sessions behind its
    patterns.
    """
    signature, namer = program.generate.signature, program.namer
    demos = filter(None, map(layout_demo, program.generate.demos))
    named = filter(None, map(naming_demo, namer.name.demos))
    grouping = program.grouping if isinstance(program.grouping, SimilarIntents) else None
    return {
        "kind": "routedk.program",
        "schema_version": 1,
        "layout": layout_hash(),
        "fields": list(signature.fields),
        "instruction": signature.instructions,
        "demos": [{name: text for name, text in demo.items() if text} for demo in demos],
        "knowledge": _knowledge_record(program.knowledge),
        "naming": {
            "layout": naming_hash(),
            "instruction": namer.name.signature.instructions,
            "demos": list(named),
            "why": namer.why,
        },
        "grouping": None if grouping is None else asdict(grouping),
        "trials": program.trials,
        "utilization": program.utilization,
    }


def _knowledge_record(knowledge: CompiledKnowledge) -> dict[str, Any]:
    sessions = knowledge.sessions if knowledge.k else ()
    known = {session.id for session in sessions} if knowledge.show_thoughts else set()
    return {
        **{name: getattr(knowledge, name) for name in _Knowledge.model_fields},
        "patterns": [_pattern_record(pattern) for pattern in knowledge.patterns],
        "sessions": [_session_record(session) for session in sessions],
        "thoughts": {name: text for name, text in knowledge.thoughts.items() if name in known},
    }


def _pattern_record(pattern: Pattern) -> dict[str, Any]:
    record = asdict(pattern)
    teacher = record.pop("provenance")["teacher"]
    return {**record, "teacher": teacher}


def _session_record(session: Session) -> dict[str, Any]:
    """The part of a session that a prompt shows: titles and gold."""
    items = tuple(Item(id=item.id, title=item.title) for item in session.items)
    return session_to_record(Session(session.id, items, session.bundles))


def read_program(path: str | Path) -> tuple[CompiledKnowledge, SavedProgram]:
    """The knowledge of a saved program, and all that was saved.

    Raises:
        ArtifactError: The file is missing, damaged, of another kind or schema version, or was
            saved under another prompt layout.
    """
    try:
        saved = checked(TypeAdapter(SavedProgram), read_json(path), path=path, hint=_REMEDY)
        _check_rendering(saved, path)
        shown = [session_from_record(record, path=path) for record in saved.knowledge.sessions]
        knowledge = CompiledKnowledge(**{**dict(saved.knowledge), "sessions": tuple(shown)})
    except DataError as error:
        raise ArtifactError(str(error)) from None
    except SettingError as error:
        raise ArtifactError(f"{path}: the program cannot be used: {error}") from None
    return knowledge, saved


def _check_rendering(saved: SavedProgram, path: str | Path) -> None:
    # Programs from before there were patterns have no field for them.
    asked, fields = {*saved.fields, "patterns"}, set(GenerateBundles.fields)
    if saved.naming.layout != naming_hash():
        raise ArtifactError(
            f"{path}: compiled under naming layout {saved.naming.layout}, this version has "
            f"{naming_hash()} ({_REMEDY})"
        )
    layout = _RENDERED_BY.get(saved.layout, saved.layout)
    if asked != fields:
        raise ArtifactError(
            f"{path}: compiled for a signature with the fields {saved.fields}, this version's are "
            f"others ({_REMEDY})"
        )
    if layout != layout_hash():
        raise ArtifactError(
            f"{path}: compiled under prompt layout {saved.layout}, this version has "
            f"{layout_hash()} ({_REMEDY})"
        )
