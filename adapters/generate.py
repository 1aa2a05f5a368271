"""`generate`: sessions to bundles, with answers kept per chunk of 64 consecutive sessions.

A chunk's answers are one artifact, under the hash of the program, the language model and the
chunk's sessions: one session more in front shifts the chunks, and all are answered again. Inside a
chunk each answer is logged as soon as it is there, so that a killed run continues after its last
answer.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from routedk.adapters.student import Dtype
from routedk.artifacts import ArtifactStore, Recipe, content_hash
from routedk.checks import check_choices, check_least
from routedk.data.records import session_to_record
from routedk.errors import SettingError
from routedk.eval import session_confidence
from routedk.files import JsonlLog, read_jsonl, write_jsonl_records
from routedk.types import Answer, Kind, Session

if TYPE_CHECKING:
    import dspy

    from routedk.programs.generator import BundleGenerator

Enhancement = Literal["greedy", "consensus"]

CHUNK = 64
"""Sessions per artifact. All callers wait at the end of a chunk, so it is several times theirs."""

_ANSWERS = "answers.jsonl"


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `generate`.

    Args:
        program: A program.json of routedk compile; unset: prompts show no knowledge.
        lm: A model by its LiteLLM name, e.g. openai/gpt-4o-mini or ollama_chat/llama3.1; its key
            is read from the environment. Unset: the student.
        experts: Folder of routed experts that routedk train wrote: the student with these experts.
        student: Folder or hub name of a causal LM. Unset or default: the student that the experts
            were trained on, or without experts the embedded student, zero-shot. With neither
            program, lm, experts nor student: the general bundler that the package carries.
        dtype: The student's: float32, bfloat16 or float16. Unset: float32 on a CPU, else bfloat16.
        enhancement: greedy takes the likeliest answer; consensus samples several and takes the one
            that agrees most with the others.
        samples: Answers per session that consensus samples.
        why: The student states why the items of a bundle belong together, too.
        kinds: Give only bundles of these kinds: complements, alternatives or mixed. Repeatable.
        abstain_below: Leave sessions whose confidence is below this, from 0 to 1, to a person or a
            teacher: they get no bundles, and an error that says so.
        threads: Sessions in progress at once.
        seed: Seed of the student's samples.

    Raises:
        SettingError: A value is not allowed.
    """

    program: Path | None = None
    lm: str | None = None
    experts: Path | None = None
    student: str | None = None
    dtype: Dtype | None = None
    enhancement: Enhancement = "greedy"
    samples: int = 8
    why: bool = False
    kinds: tuple[Kind, ...] = ()
    abstain_below: float | None = None
    threads: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, samples=1, threads=1, seed=0)
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise SettingError(f"abstain_below={self.abstain_below}: it must be from 0 to 1")

    @property
    def names_nothing(self) -> bool:
        """Whether neither a program nor a model is named."""
        return not any((self.program, self.lm, self.experts, self.student))

    def shown(self, answer: Answer) -> Answer:
        """The answer with the kinds that were asked for, or without bundles where it abstains."""
        if self.abstain_below is not None and not answer.error:
            confidence = session_confidence(answer)
            if confidence is None or confidence < self.abstain_below:
                known = "unknown" if confidence is None else f"{confidence:.2f}"
                return replace(answer, bundles=(), error=f"abstained: its confidence is {known}")
        if not self.kinds:
            return answer
        if any(bundle.kind is None for bundle in answer.bundles):
            raise SettingError(
                "kinds: these bundles have none. A grouping names kinds where its labels do, as a "
                "teacher's answers; leave the option out"
            )
        return replace(answer, bundles=tuple(b for b in answer.bundles if b.kind in self.kinds))


def generate(
    sessions: Iterable[Session],
    config: GenerateConfig | None = None,
    *,
    program: "BundleGenerator | None" = None,
    lm: "dspy.LM | None" = None,
    store: ArtifactStore | str | Path | None = None,
) -> list[Answer]:
    """Generate the bundles of each session, in the sessions' order.

    Answers are kept in the artifact store per chunk of 64 consecutive sessions: the same chunk,
    program and model are not answered again, and an interrupted run resumes by itself.

    Args:
        sessions: What to answer. Gold bundles are not looked at, and no session of a chunk of 64
            is shown as a neighbour, with its gold, to another one of the chunk.
        config: Settings; None for the defaults.
        program: The program, instead of ``config.program``.
        lm: The language model, instead of the one that the config names. Without either, and
            without a program, it is the student with the packaged general bundler.
        store: The artifact store or its folder; None for the one in the cache folder.

    Returns:
        One answer per session. One that could not be read has no bundles, and says why.

    Raises:
        SettingError: A setting is not allowed, or a student that names bundles has no grouping.

    Example:
        >>> from routedk import generate, load_sessions
        >>> answers = generate(load_sessions("demo")[:2])
        >>> [answer.session_id for answer in answers]
        ['demo-000', 'demo-001']
    """
    return list(stream_answers(sessions, config, program=program, lm=lm, store=store))


def stream_answers(
    sessions: Iterable[Session],
    config: GenerateConfig | None = None,
    *,
    program: "BundleGenerator | None" = None,
    lm: "dspy.LM | None" = None,
    store: ArtifactStore | str | Path | None = None,
) -> Iterator[Answer]:
    """Generate answers one chunk at a time, for a stream of sessions; see `generate`.

    Settings are checked, and the model is loaded, when this is called.
    """
    from pydantic import TypeAdapter

    config = config or GenerateConfig()
    asked = resolve_program(config, program=program, lm=lm)
    store, left = ArtifactStore.of(store), iter(sessions)
    read = TypeAdapter(Answer).validate_python

    def answers() -> Iterator[Answer]:
        knowledge = asked.knowledge
        while chunk := list(islice(left, CHUNK)):
            asked.knowledge = knowledge.without(session.id for session in chunk)
            artifact = store.obtain(_recipe(chunk, asked, config), _maker(chunk, asked, config))
            for _, record in read_jsonl(artifact.folder / _ANSWERS):
                yield config.shown(read(record))

    return answers()


def resolve_program(
    config: GenerateConfig,
    *,
    program: "BundleGenerator | None" = None,
    lm: "dspy.LM | None" = None,
) -> "BundleGenerator":
    """Load the program that a config names, with its language model set; see `generate`.

    Raises:
        SettingError: A setting is not allowed, or a student that names bundles has no grouping.
    """
    from routedk.adapters.lm import default_lm, resolve_lm
    from routedk.programs.generator import BundleGenerator, load_program

    if lm is None:
        packaged = program is None and config.names_nothing
        named = (config.lm, config.experts, config.student, config.dtype)
        lm = default_lm(config.dtype) if packaged else resolve_lm(*named)
    if program is None:
        program = load_program(config.program) if config.program else BundleGenerator()
    # Only engines in this process are known to take a seed.
    if config.enhancement == "consensus" and "seed" in getattr(lm.engine, "supported_params", ()):
        lm = lm.copy(seed=config.seed)
    asked = deepcopy(program)
    asked.set_lm(lm)
    # Raises now where the model cannot answer.
    if asked.groups_by() is not None and config.enhancement == "consensus":
        raise SettingError(
            "enhancement 'consensus' chooses among bundles that a language model states, and here "
            "items are grouped first: leave it out"
        )
    asked.namer.why = asked.namer.why or config.why
    return asked


def _recipe(chunk: list[Session], program: "BundleGenerator", config: GenerateConfig) -> Recipe:
    from routedk.programs.lm_identity import lm_identity

    shown = [session_to_record(session) | {"bundles": []} for session in chunk]
    return Recipe(
        stage="answers",
        inputs={"program": program.fingerprint(), "sessions": content_hash(shown)},
        settings={
            "lm": lm_identity(program.generate.lm),
            "enhancement": config.enhancement,
            "samples": config.samples if config.enhancement == "consensus" else 1,
        },
    )


def _maker(
    chunk: list[Session], program: "BundleGenerator", config: GenerateConfig
) -> Callable[[Path, Path], None]:
    """Makes the artifact of a chunk, answering each session once."""
    from routedk.programs.batch import call_all
    from routedk.programs.consensus import Consensus

    sampled = config.enhancement == "consensus"
    asked: Any = Consensus(program, n=config.samples) if sampled else program

    def make(out: Path, work: Path) -> None:
        with JsonlLog(work / _ANSWERS) as log:
            made = {record["session_id"] for _, record in log.records}
            left = [session for session in chunk if session.id not in made]
            call_all(
                lambda session: log.append(asdict(_answer(session, asked))),
                left,
                num_threads=config.threads,
            )
        records = {record["session_id"]: record for _, record in read_jsonl(log.path)}
        write_jsonl_records(out / _ANSWERS, (records[session.id] for session in chunk))

    return make


def _answer(session: Session, program: Any) -> Answer:
    """A program's answer, with what asking for it has cost."""
    from routedk.programs.usage import metered

    with metered() as meter:
        found = program(session=session)
    tokens = meter.usage.input_tokens, meter.usage.output_tokens
    return answer_of(session, found, *tokens)


def answer_of(
    session: Session, found: "dspy.Prediction", input_tokens: int = 0, output_tokens: int = 0
) -> Answer:
    """Make an answer of a program's prediction."""
    return Answer(
        session.id,
        tuple(found.bundles),
        error=found.error or "",
        dropped=tuple(found.get("dropped") or ()),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        item_intents=tuple(found.get("item_intents") or ()),
        confidence=found.get("confidence"),
    )
