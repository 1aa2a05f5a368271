"""A compiled program on disk: one ``program.json`` with state and architecture, without its LM."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue

from routedk.data.records import session_from_record
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import write_json
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping import SimilarIntents
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.context import NeighbourStyle
from routedk.programs.knowledge.utilization import UtilizationName
from routedk.programs.prompting.demos import layout_demo
from routedk.programs.prompting.layout import layout_hash
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.saved import SCHEMA_VERSION, Record, check_layout, read_saved, shown_session
from routedk.types import Pattern, Provenance

KIND = "routedk.program"
_REMEDY = "compile the program again"
_OF_PATTERNS = ("categories", "support", "confidence", "lift")
_FIELDS = list(GenerateBundles.fields)
_WITHOUT_PATTERNS = [name for name in _FIELDS if name != "patterns"]


class _Pattern(Record):
    categories: Annotated[tuple[str, ...], Field(min_length=2)]
    support: float
    confidence: float
    lift: float
    teacher: str


class _Knowledge(Record):
    patterns: tuple[_Pattern, ...] = ()
    patterns_shown: int | None = None
    rules: tuple[str, ...]
    rules_shown: int | None
    k: int
    style: NeighbourStyle
    show_thoughts: bool
    retriever: str
    sessions: list[dict[str, Any]]
    thoughts: dict[str, str]


class _Program(Record):
    kind: str
    schema_version: int
    layout: str
    fields: list[str]
    instruction: str
    demos: list[dict[str, str]]
    knowledge: _Knowledge
    grouping: SimilarIntents | None
    trials: list[dict[str, JsonValue]]
    utilization: UtilizationName | None = None


def save_program(program: BundleGenerator, path: str | Path) -> None:
    """Write a program as JSON, atomically; an existing file is replaced."""
    write_json(path, program_record(program))


def program_record(program: BundleGenerator) -> dict[str, Any]:
    """A program as JSON.

    In it are its knowledge, instruction, demos and trials; never its LM. Training sessions and
    thoughts that it does not show are left out, and so are the sessions behind its patterns.
    """
    signature = program.generate.signature
    demos = filter(None, map(layout_demo, program.generate.demos))
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "layout": layout_hash(),
        "fields": list(signature.fields),
        "instruction": signature.instructions,
        "demos": [{name: text for name, text in demo.items() if text} for demo in demos],
        "knowledge": _knowledge_record(program.knowledge),
        "grouping": None if program.grouping is None else asdict(program.grouping),
        "trials": program.trials,
        "utilization": program.utilization,
    }


def _knowledge_record(knowledge: CompiledKnowledge) -> dict[str, Any]:
    sessions = knowledge.sessions if knowledge.k else ()
    known = {session.id for session in sessions} if knowledge.show_thoughts else set()
    return {
        **{name: getattr(knowledge, name) for name in _Knowledge.model_fields},
        "patterns": [
            {
                **{name: getattr(pattern, name) for name in _OF_PATTERNS},
                "teacher": pattern.provenance.teacher,
            }
            for pattern in knowledge.patterns
        ],
        "sessions": [shown_session(session) for session in sessions],
        "thoughts": {name: text for name, text in knowledge.thoughts.items() if name in known},
    }


def load_program(path: str | Path) -> BundleGenerator:
    """Read a program; give it an LM with ``dspy.context(lm=...)`` or ``set_lm``.

    Raises:
        ArtifactError: The file is missing, damaged, of another kind or schema version, or was
            saved under another prompt layout.
    """
    what = "a program that `routedk compile` wrote"
    saved = read_saved(path, _Program, kind=KIND, what=what, remedy=_REMEDY)
    _check_rendering(saved, path)
    try:
        knowledge = _knowledge(saved.knowledge, path)
    except (DataError, SettingError) as error:
        raise ArtifactError(f"{path}: the program cannot be used: {error}") from None
    program = BundleGenerator(knowledge, saved.grouping)
    predictor = program.generate
    predictor.signature = predictor.signature.with_instructions(saved.instruction)
    predictor.demos = list(saved.demos)
    program.trials = list(saved.trials)
    program.utilization = saved.utilization
    return program


def _check_rendering(saved: _Program, path: str | Path) -> None:
    # Written before there were patterns; what it renders has not changed.
    earlier = saved.fields == _WITHOUT_PATTERNS and not saved.knowledge.patterns
    if saved.fields != _FIELDS and not earlier:
        raise ArtifactError(
            f"{path}: compiled for a signature with the fields {saved.fields}, this one has "
            f"{_FIELDS} ({_REMEDY})"
        )
    check_layout(path, saved.layout, layout_hash(patterns=not earlier), _REMEDY)


def _knowledge(saved: _Knowledge, path: str | Path) -> CompiledKnowledge:
    patterns = tuple(
        Pattern(
            **pattern.model_dump(include=set(_OF_PATTERNS)),
            provenance=Provenance(teacher=pattern.teacher),
        )
        for pattern in saved.patterns
    )
    sessions = tuple(session_from_record(record, path=path) for record in saved.sessions)
    return CompiledKnowledge(**{**dict(saved), "patterns": patterns, "sessions": sessions})
