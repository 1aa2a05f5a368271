"""`stream_answers`: sessions to bundles, each answer kept as soon as it is ready.

An answer depends only on the program, the language model and its session. The answers of one
program and model form one growing artifact, so a killed run resumes after its last answer.
"""

from collections.abc import Callable, Generator, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routedk.adapters.student import Dtype
from routedk.artifacts import ArtifactStore, Recipe
from routedk.checks import check_choices, check_least
from routedk.errors import SettingError
from routedk.eval import session_confidence
from routedk.rules import BundleRules, read_rules
from routedk.types import Answer, Kind, Session

if TYPE_CHECKING:
    import dspy

    from routedk.programs.generator import BundleGenerator


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `generate`.

    Args:
        program: A program.json from routedk compile. Unset: prompts show no knowledge.
        lm: A model by its LiteLLM name, e.g. openai/gpt-4o-mini or ollama_chat/llama3.1; its key
            is read from the environment. Unset: the student.
        experts: Folder of routed experts from routedk train; the student answers with them.
        student: Folder or hub name of a causal LM. Unset or default: the student that the experts
            were trained on, or without experts the embedded student, zero-shot. If lm, experts
            and student are all unset: the packaged general bundler.
        dtype: Student precision: float32, bfloat16, float16. Unset: float32 on CPU, else bfloat16.
        why: Explain bundles: the two items that tie them most, the program's knowledge that
            supports them, and a sentence, which the student writes if it names the bundles.
        why_lm: LiteLLM name of a model, e.g. a teacher, that writes intents and sentences instead
            of the student; the student still groups the items. Implies why.
        kinds: Return only bundles of these kinds: complements, alternatives or mixed. Repeatable.
        rules: TOML file with the rules of a catalogue: stock, prices, maximum items, kinds,
            categories kept apart, items pinned together or excluded. Bundles are chosen to break
            none, and report what that changed.
        abstain_below: Leave sessions with a confidence below this, from 0 to 1, to a person or a
            teacher: they get no bundles, and an error that says so.
        threads: Sessions in progress at once.

    Raises:
        SettingError: A value is not allowed.
    """

    program: Path | None = None
    lm: str | None = None
    experts: Path | None = None
    student: str | None = None
    dtype: Dtype | None = None
    why: bool = False
    why_lm: str | None = None
    kinds: tuple[Kind, ...] = ()
    rules: Path | None = None
    abstain_below: float | None = None
    threads: int = 16

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, threads=1)
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise SettingError(f"abstain_below={self.abstain_below}: it must be from 0 to 1")

    @property
    def names_no_model(self) -> bool:
        """Whether no model is named, so that the packaged bundler answers."""
        return not any((self.lm, self.experts, self.student))

    def shown(self, answer: Answer) -> Answer:
        """The answer with only the requested kinds, or without bundles if it abstains."""
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


def stream_answers(
    sessions: Iterable[Session | Answer],
    config: GenerateConfig | None = None,
    *,
    program: "BundleGenerator | None" = None,
    lm: "dspy.LM | None" = None,
    rules: BundleRules | None = None,
    store: ArtifactStore | str | Path | None = None,
) -> Generator[Answer]:
    """Generate answers one by one, each as soon as it and those before it are ready.

    Like `generate`, for sessions that may arrive slowly or never end. Only sessions in progress, or
    answered and waiting for an earlier one, are taken in advance: at most twice the threads.
    Settings are checked, and the model is loaded, when this is called.
    """
    from routedk.adapters.kept_answers import open_answers
    from routedk.programs.batch import call_each

    config = config or GenerateConfig()
    ask, recipe = answering(config, program=program, lm=lm, rules=rules)
    store = ArtifactStore.of(store)

    def answers() -> Generator[Answer]:
        with open_answers(store.obtain(recipe, lambda out, work: None).folder) as kept:

            def kept_or_asked(session: Session | Answer) -> Answer:
                if isinstance(session, Answer):
                    return session
                if (found := kept.get(session)) is None:
                    found = ask(session)
                    kept.add(session, found)
                return config.shown(found)

            yield from call_each(kept_or_asked, sessions, num_threads=config.threads)

    return answers()


def answering(
    config: GenerateConfig,
    *,
    program: "BundleGenerator | None" = None,
    lm: "dspy.LM | None" = None,
    rules: BundleRules | None = None,
) -> tuple[Callable[[Session], Answer], Recipe]:
    """The function that answers a session, unfiltered, and the recipe of its answers.

    Raises:
        SettingError: As for `generate`.
    """
    from routedk.programs.grouping.protocol import ruled

    if rules is None and config.rules is not None:
        rules = read_rules(config.rules)
    asked = resolve_program(config, program=program, lm=lm)
    if rules is not None:
        ruled(asked.groups_by())  # Raises early if rules cannot hold.
    return partial(answer, program=asked, rules=rules), _recipe(asked, config, rules)


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
        named = (config.lm, config.experts, config.student, config.dtype)
        lm = default_lm(config.dtype) if config.names_no_model else resolve_lm(*named)
    if program is None:
        program = load_program(config.program) if config.program else BundleGenerator()
    asked = deepcopy(program)
    asked.set_lm(lm)
    grouped = asked.groups_by() is not None  # Raises early if the model cannot answer.
    asked.namer.why = asked.namer.why or config.why or config.why_lm is not None
    if config.why_lm is not None:
        if not grouped:
            raise SettingError(
                f"why_lm={config.why_lm}: it names bundles of a grouping, and here the language "
                "model states the bundles: leave it out"
            )
        asked.namer.set_lm(resolve_lm(config.why_lm))
    return asked


def _recipe(
    program: "BundleGenerator", config: GenerateConfig, rules: BundleRules | None
) -> Recipe:
    from routedk.programs.lm_identity import lm_identity

    more = {} if rules is None else {"rules": rules.model_dump(mode="json")}
    if config.why_lm is not None:
        more["why_lm"] = lm_identity(program.namer.name.lm)
    return Recipe(
        stage="answers",
        inputs={"program": program.fingerprint()},
        settings={"lm": lm_identity(program.generate.lm), **more},
    )


def answer(session: Session, program: Any, rules: BundleRules | None = None) -> Answer:
    """Answer a session with a program whose language model is set, and count the tokens."""
    import dspy

    from routedk.programs.usage import metered

    # DSPy's trace would keep each call's predictor, and with it the student, alive forever.
    with dspy.context(trace=None), metered() as meter:
        found = program(session=session, **({} if rules is None else {"rules": rules}))
    tokens = meter.usage.input_tokens, meter.usage.output_tokens
    return answer_of(session, found, *tokens)


async def answer_async(
    session: Session, program: "BundleGenerator", rules: BundleRules | None = None
) -> Answer:
    """Answer a session for a server, keeping neither DSPy's trace nor its history."""
    import dspy

    with dspy.context(disable_history=True, trace=None):
        return answer_of(session, await program.acall(session=session, rules=rules))


def answer_of(
    session: Session, found: "dspy.Prediction", input_tokens: int = 0, output_tokens: int = 0
) -> Answer:
    """Convert a program's prediction to an answer."""
    return Answer(
        session.id,
        tuple(found.bundles),
        error=found.error or "",
        dropped=tuple(found.get("dropped") or ()),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        item_intents=tuple(found.get("item_intents") or ()),
        confidence=found.get("confidence"),
        changed=tuple(found.get("changed") or ()),
    )
