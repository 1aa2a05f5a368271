"""A compiled program on disk: one ``program.json`` with state and architecture, without its LM."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from routedk.artifacts import content_hash
from routedk.data.records import session_from_record, session_to_record
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json, write_json
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping import SimilarIntents
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.knowledge.context import NeighbourStyle
from routedk.programs.knowledge.utilization import utilization_of
from routedk.programs.prompting.demos import layout_demo
from routedk.programs.prompting.layout import layout_hash
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.saved_record import checked_record
from routedk.similarity.pairs import PairModel
from routedk.types import Item, Pattern, Provenance, Session

KIND = "routedk.program"
SCHEMA_VERSION = 1
_FIELDS = tuple(GenerateBundles.fields)
_WITHOUT_PATTERNS = tuple(name for name in _FIELDS if name != "patterns")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Pattern(_Strict):
    categories: Annotated[list[str], Field(min_length=2)]
    support: float
    confidence: float
    lift: float
    teacher: str


class _Knowledge(_Strict):
    patterns: list[_Pattern] = []
    patterns_shown: Annotated[int, Field(ge=1)] | None = None
    rules: list[str]
    rules_shown: Annotated[int, Field(ge=1)] | None
    k: int = Field(ge=0)
    style: NeighbourStyle
    show_thoughts: bool
    retriever: str
    sessions: list[dict[str, Any]]
    thoughts: dict[str, str]


class _Pairs(_Strict):
    weights: list[float]
    bias: float


class _Grouping(_Strict):
    weight: float
    threshold: float
    fall_back: bool
    pairs: _Pairs | None = None
    by_likelihood: bool = False


class _Program(_Strict):
    kind: Literal["routedk.program"]
    schema_version: Literal[1]
    layout: str
    fields: list[str]
    instruction: str
    demos: list[dict[str, str]]
    knowledge: _Knowledge
    grouping: _Grouping | None
    trials: list[dict[str, JsonValue]]
    utilization: str | None = None


def _shown(session: Session) -> dict[str, Any]:
    """The record of a session with what a prompt shows of it: titles and gold."""
    items = tuple(Item(id=item.id, title=item.title) for item in session.items)
    return session_to_record(Session(session.id, items, session.bundles))


def _pattern(pattern: Pattern) -> _Pattern:
    return _Pattern(
        categories=list(pattern.categories),
        support=pattern.support,
        confidence=pattern.confidence,
        lift=pattern.lift,
        teacher=pattern.provenance.teacher,
    )


def _read_pattern(stored: _Pattern) -> Pattern:
    return Pattern(
        categories=tuple(stored.categories),
        support=stored.support,
        confidence=stored.confidence,
        lift=stored.lift,
        provenance=Provenance(teacher=stored.teacher),
    )


def _grouping(grouping: SimilarIntents) -> _Grouping:
    pairs = grouping.pairs
    kept = None if pairs is None else _Pairs(weights=list(pairs.weights), bias=pairs.bias)
    return _Grouping(**{**vars(grouping), "pairs": kept})


def _read_grouping(stored: _Grouping) -> SimilarIntents:
    kept = stored.pairs
    pairs = None if kept is None else PairModel(tuple(kept.weights), kept.bias)
    return SimilarIntents(**{**dict(stored), "pairs": pairs})


def _demos(demos: Iterable[Any]) -> list[dict[str, str]]:
    """Demos as the prompt shows them, so that training examples among them are texts, too."""
    shown = filter(None, map(layout_demo, demos))
    return [{name: text for name, text in demo.items() if text} for demo in shown]


def save_program(generator: BundleGenerator, path: str | Path) -> None:
    """Write a program as JSON, atomically; an existing file is replaced."""
    write_json(path, program_record(generator))


def program_hash(generator: BundleGenerator) -> str:
    """SHA-256 of everything that a program's answers depend on, its LM left out."""
    return content_hash(program_record(generator) | {"trials": []})


def program_record(generator: BundleGenerator) -> dict[str, Any]:
    """A program as JSON.

    In it are its knowledge, instruction, demos and trials; never its LM. Training sessions and
    thoughts that it does not show are left out, and so are the sessions behind its patterns.
    """
    knowledge = generator.knowledge
    sessions = knowledge.sessions if knowledge.k else ()
    known = {session.id for session in sessions} if knowledge.show_thoughts else set()
    return _Program(
        kind="routedk.program",
        schema_version=1,
        layout=layout_hash(),
        fields=list(generator.generate.signature.fields),
        instruction=generator.generate.signature.instructions,
        demos=_demos(generator.generate.demos),
        knowledge=_Knowledge(
            patterns=[_pattern(pattern) for pattern in knowledge.patterns],
            patterns_shown=knowledge.patterns_shown,
            rules=list(knowledge.rules),
            rules_shown=knowledge.rules_shown,
            k=knowledge.k,
            style=knowledge.style,
            show_thoughts=knowledge.show_thoughts,
            retriever=knowledge.retriever,
            sessions=[_shown(session) for session in sessions],
            thoughts={name: text for name, text in knowledge.thoughts.items() if name in known},
        ),
        grouping=None if generator.grouping is None else _grouping(generator.grouping),
        trials=generator.trials,
        utilization=generator.utilization,
    ).model_dump()


def load_program(path: str | Path) -> BundleGenerator:
    """Read a program; give it an LM with ``dspy.context(lm=...)`` or ``set_lm``.

    Raises:
        ArtifactError: The file is missing, damaged, of another kind or schema version, or was
            compiled for another prompt layout or signature.
    """
    try:
        record = read_json(path)
    except DataError as error:
        raise ArtifactError(str(error)) from None
    program = _checked(record, path)
    stored = program.knowledge
    try:
        knowledge = CompiledKnowledge(
            patterns=tuple(map(_read_pattern, stored.patterns)),
            patterns_shown=stored.patterns_shown,
            rules=tuple(stored.rules),
            rules_shown=stored.rules_shown,
            k=stored.k,
            sessions=tuple(session_from_record(record, path=path) for record in stored.sessions),
            thoughts=stored.thoughts,
            show_thoughts=stored.show_thoughts,
            style=stored.style,
            retriever=stored.retriever,
        )
        utilization_of(program.utilization)
        grouping = None if program.grouping is None else _read_grouping(program.grouping)
    except (DataError, SettingError) as error:
        raise ArtifactError(f"{path}: the program cannot be used: {error}") from None
    generator = BundleGenerator(knowledge, grouping)
    predictor = generator.generate
    predictor.signature = predictor.signature.with_instructions(program.instruction)
    predictor.demos = list(program.demos)
    generator.trials = list(program.trials)
    generator.utilization = program.utilization
    return generator


def _checked(record: object, path: str | Path) -> _Program:
    program = checked_record(
        record,
        path,
        _Program,
        kind=KIND,
        version=SCHEMA_VERSION,
        what="a program",
        writer="`routedk compile`",
        remedy="compile the program again",
    )
    # Written before there were patterns; what it renders has not changed.
    earlier = program.fields == list(_WITHOUT_PATTERNS) and not program.knowledge.patterns
    if program.fields != list(_FIELDS) and not earlier:
        raise ArtifactError(
            f"{path}: compiled for a signature with the fields {program.fields}, this one has "
            f"{list(_FIELDS)} (compile the program again)"
        )
    if program.layout != layout_hash(patterns=not earlier):
        raise ArtifactError(
            f"{path}: compiled for prompt layout {program.layout}, this version renders "
            f"{layout_hash()} (compile the program again)"
        )
    return program
