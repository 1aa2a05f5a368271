"""A compiled program on disk: one ``program.json`` with state and architecture, without its LM.

The same record is part of the state that DSPy saves for a program that contains this one.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dspy.predict.parameter import Parameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter

from routedk.data.records import session_from_record, session_to_record
from routedk.data.validation import checked
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.programs.grouping.protocol import Grouping
from routedk.programs.grouping.similar_intents import SimilarIntents
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.utilization import UtilizationName
from routedk.programs.prompting.bundle_adapter import layout_demo, naming_demo
from routedk.programs.prompting.layout import LAYOUT
from routedk.programs.prompting.naming import NAMING_LAYOUT, naming_instruction
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.types import Item, Pattern, Session

if TYPE_CHECKING:
    from routedk.programs.generator import BundleGenerator

_REMEDY = "compile the program again"
# Earlier layouts, each with the later one that renders identically all that the earlier could.
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
    # Written before 0.6, when there was another style.
    style: Literal["demos"] = "demos"
    show_thoughts: bool
    retriever: str
    sessions: list[dict[str, Any]]
    thoughts: dict[str, str]


class SavedNaming(BaseModel):
    """How a program asks for the intent of one bundle."""

    model_config = ConfigDict(extra="forbid")

    layout: str = NAMING_LAYOUT
    instruction: str = Field(default_factory=naming_instruction)
    demos: list[dict[str, str]] = []
    why: bool = False


class SavedGrouping(BaseModel):
    """The location of a `Grouping`, which holds a model and is not part of the file."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: str
    folder: str | None

    def load(self) -> Grouping:
        """Load it from its folder.

        Raises:
            SettingError: It has no folder, or another grouping is there.
            ArtifactError: The folder is missing or damaged.
        """
        from routedk.programs.grouping.encoder import EncoderGrouping

        found = EncoderGrouping.load(self.folder) if self.folder else None
        if found is None or found.fingerprint() != self.fingerprint:
            raise SettingError(
                f"this program was saved with a grouping that is not in {self.folder or 'the file'}"
                ": set it again (program.grouping = ...)"
            )
        return found


class SavedProgram(BaseModel):
    """The content of a program's file."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["routedk.program"]
    schema_version: Literal[1]
    layout: str
    fields: list[str]
    instruction: str
    demos: list[dict[str, str | dict[str, Any]]]
    knowledge: _Knowledge
    naming: SavedNaming = Field(default_factory=SavedNaming)
    grouping: SimilarIntents | None
    grouped_by: SavedGrouping | None = None
    trials: list[dict[str, JsonValue]]
    utilization: UtilizationName | None = None


def program_record(program: "BundleGenerator") -> dict[str, Any]:
    """A program as JSON.

    It holds the knowledge, instructions, demos and trials, and the fingerprint and folder of a
    `Grouping`, but never the LM. Training sessions and thoughts that are not shown are left out,
    and so are the sessions behind the patterns.
    """
    signature, namer = program.generate.signature, program.namer
    named = filter(None, map(naming_demo, namer.name.demos))
    grouping = program.grouping
    similar = asdict(grouping) if isinstance(grouping, SimilarIntents) else None
    encoder = {} if grouping is None or similar else {"grouped_by": _grouping_record(grouping)}
    return {
        "kind": "routedk.program",
        "schema_version": 1,
        "layout": LAYOUT,
        "fields": list(signature.fields),
        "instruction": signature.instructions,
        "demos": list(filter(None, map(_demo_record, program.generate.demos))),
        "knowledge": _knowledge_record(program.knowledge),
        "naming": {
            "layout": NAMING_LAYOUT,
            "instruction": namer.name.signature.instructions,
            "demos": list(named),
            "why": namer.why,
        },
        "grouping": similar,
        **encoder,
        "trials": program.trials,
        "utilization": program.utilization,
    }


def _demo_record(demo: Any) -> dict[str, Any] | None:
    """The texts of a demo as prompts show it; a `Session` in it is kept as its record."""
    texts = {name: text for name, text in (layout_demo(demo) or {}).items() if text}
    if texts and isinstance(session := demo.get("session"), Session):
        return {**texts, "session": _session_record(session)}
    return texts or None


def _read_demo(record: dict[str, Any], path: str | Path) -> dict[str, Any]:
    session = record.get("session")
    if isinstance(session, dict):
        return {**record, "session": session_from_record(session, path=path)}
    return record


def _grouping_record(grouping: Any) -> dict[str, Any]:
    if isinstance(grouping, SavedGrouping):
        return grouping.model_dump()
    folder = getattr(grouping, "folder", None)
    return {"fingerprint": grouping.fingerprint(), "folder": folder and str(folder)}


def _knowledge_record(knowledge: CompiledKnowledge) -> dict[str, Any]:
    sessions = knowledge.sessions if knowledge.k else ()
    known = {session.id for session in sessions} if knowledge.show_thoughts else set()
    return {
        **{name: getattr(knowledge, name) for name in _Knowledge.model_fields if name != "style"},
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


def read_record(program: "BundleGenerator", record: object, path: str | Path) -> None:
    """Restore a saved program from its record.

    Args:
        program: The program to change; it keeps its `Grouping` if that is the one that was saved.
        record: As `program_record` makes it.
        path: Named in errors.

    Raises:
        ArtifactError: It is damaged, of another kind or schema version, or was saved under another
            prompt layout.
    """
    try:
        saved = checked(TypeAdapter(SavedProgram), record, path=path, hint=_REMEDY)
        _check_rendering(saved, path)
        shown = [session_from_record(record, path=path) for record in saved.knowledge.sessions]
        values = {**dict(saved.knowledge), "sessions": tuple(shown)}
        del values["style"]
        knowledge = CompiledKnowledge(**values)
        demos = [_read_demo(demo, path) for demo in saved.demos]
    except DataError as error:
        raise ArtifactError(str(error)) from None
    except SettingError as error:
        raise ArtifactError(f"{path}: the program cannot be used: {error}") from None
    kept, stated = program_record(program).get("grouped_by"), saved.grouped_by
    if not (kept and stated and kept["fingerprint"] == stated.fingerprint):
        program.grouping = stated or saved.grouping
    program.knowledge, program.namer.why = knowledge, saved.naming.why
    for predictor, text, own in (
        (program.generate, saved.instruction, demos),
        (program.namer.name, saved.naming.instruction, saved.naming.demos),
    ):
        predictor.signature = predictor.signature.with_instructions(text)
        predictor.demos = list(own)
    program.trials, program.utilization = list(saved.trials), saved.utilization


class ProgramState(Parameter):  # type: ignore[misc]  # DSPy is untyped here
    """Lets DSPy save and load what a program has besides its predictors.

    DSPy saves the state of all parameters, however deeply they are nested in a larger program.

    Args:
        program: The program.
    """

    def __init__(self, program: "BundleGenerator") -> None:
        self._program = program

    def reset(self) -> None:
        """Do nothing: an optimizer that starts over keeps a program's knowledge."""

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """The program's record, always serializable as JSON."""
        return program_record(self._program)

    def load_state(self, state: object) -> None:
        """Restore the program from its record; DSPy has loaded the predictors before."""
        read_record(self._program, state, "saved program")


def _check_rendering(saved: SavedProgram, path: str | Path) -> None:
    # Programs saved before patterns existed have no field for them.
    if {*saved.fields, "patterns"} != set(GenerateBundles.fields):
        raise ArtifactError(
            f"{path}: compiled for a signature with the fields {saved.fields}, this version's are "
            f"others ({_REMEDY})"
        )
    layout = _RENDERED_BY.get(saved.layout, saved.layout)
    for what, theirs, ours in (
        ("naming", saved.naming.layout, NAMING_LAYOUT),
        ("prompt", layout, LAYOUT),
    ):
        if theirs != ours:
            raise ArtifactError(
                f"{path}: compiled under {what} layout {theirs}, this version has {ours} "
                f"({_REMEDY})"
            )
