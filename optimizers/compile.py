"""`compile_program`: chooses a program's prompt and grouping by their scores on validation."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from routedk.artifacts import ArtifactStore, Recipe, content_hash
from routedk.checks import check_least
from routedk.errors import SettingError
from routedk.files import read_text
from routedk.types import Answer, KnowledgeBase, Session

if TYPE_CHECKING:
    import dspy

    from routedk.programs.generator import BundleGenerator

_PROGRAM = "program.json"
# What answers are asked with, beside the model: no result depends on it.
_NOT_IN_KEY = ("threads", "instruction", "lm", "experts", "student")


@dataclass(frozen=True, kw_only=True)
class CompileConfig:
    """All settings of a compilation.

    Args:
        evaluations: Candidates scored, the plain program among them.
        level: How often, at most, chance alone may replace the plain program: above 0 and below 1,
            shared among the candidates.
        instruction: A text file with an instruction to try beside the usual one.
        token_budget: Most tokens of a prompt on the validation sessions; longer candidates are
            not tried.
        max_validation: Most validation sessions a candidate is scored on; the grouping sees all.
        retriever: How similar sessions are found: tfidf, minilm, or the name or folder of a
            sentence-transformers model.
        utilization: Where knowledge is used: ICL (in the prompt), SFT (in the experts' training)
            or SFT+ICL. Unset: as validation says.
        neighbours: Similar sessions in each prompt. With neighbours, rules or patterns set, the
            prompt shows exactly these numbers and no candidates are scored.
        rules: Rules in each prompt, the nearest to its session; see neighbours.
        patterns: Patterns in each prompt, the nearest to its session; see neighbours.
        threads: Calls to the language model at once.
        seed: Random seed.
        lm: A model by its LiteLLM name, e.g. openai/gpt-4o-mini or ollama_chat/llama3.1; its key
            is read from the environment.
        experts: Folder of the student's routed experts, as train writes it.
        student: default for the embedded student, or a folder or hub name of a causal LM. With
            experts: the student they were trained on.
        dtype: The student's: float32, bfloat16 or float16. Unset: float32 on a CPU, else bfloat16.

    Raises:
        SettingError: A value is not allowed.
    """

    evaluations: int = 6
    level: float = 0.05
    instruction: tuple[Path, ...] = ()
    token_budget: int | None = None
    max_validation: int | None = 32
    retriever: str = "tfidf"
    utilization: Literal["ICL", "SFT", "SFT+ICL"] | None = None
    neighbours: int | None = None
    rules: int | None = None
    patterns: int | None = None
    threads: int = 16
    seed: int = 0
    lm: str | None = None
    experts: Path | None = None
    student: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        from routedk.programs.knowledge.neighbours import check_retriever
        from routedk.programs.knowledge.utilization import utilization_of

        check_least(self, evaluations=1, token_budget=1, max_validation=1, threads=1)
        check_least(self, neighbours=0, rules=0, patterns=0)
        if not 0 < self.level < 1:
            raise SettingError(f"level={self.level}: it must be above 0 and below 1")
        check_retriever(self.retriever)
        wanted = utilization_of(self.utilization)
        if wanted is None:
            return
        if not wanted.trains and self.experts is not None:
            raise SettingError(
                f"utilization {self.utilization!r} trains no experts: leave experts out, name "
                "student or lm"
            )
        if wanted.prompts and not self.fixed and self.evaluations < 2:
            raise SettingError(
                f"evaluations={self.evaluations}: with utilization {self.utilization!r} at least "
                "2, the student as it was given is only compared with"
            )

    @property
    def level_each(self) -> float:
        """The p-value at which one candidate replaces another: the level shared among all."""
        return self.level / max(1, self.evaluations - 1)

    @property
    def fixed(self) -> bool:
        """Whether the prompt is given, instead of chosen on validation."""
        return any(count is not None for count in (self.neighbours, self.rules, self.patterns))


def read_instructions(config: CompileConfig) -> tuple[str, ...]:
    """The texts of the instructions to try.

    Raises:
        DataError: A file cannot be read.
        SettingError: One is empty.
    """
    texts = [read_text(path).strip() for path in config.instruction]
    for path, text in zip(config.instruction, texts, strict=True):
        if not text:
            raise SettingError(f"instruction {str(path)!r}: the file is empty, leave it out")
    return tuple(dict.fromkeys(texts))


def compile_program(
    train: Sequence[Session],
    validation: Sequence[Session],
    knowledge: KnowledgeBase,
    config: CompileConfig | None = None,
    *,
    lm: "dspy.LM | None" = None,
    store: ArtifactStore | str | Path | None = None,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> "BundleGenerator":
    """Choose the prompt and the grouping of a program by their scores on validation sessions.

    First `KnowledgeInjection` chooses instruction, rules, patterns and neighbours, then
    `GroupingSearch` how bundles are made of the intents that the student names. The plain program
    stays where nothing is better than it, session by session, beyond chance. The result and the
    candidates' answers are kept in the store: the same call again returns at once, an interrupted
    one asks no answered session again.

    Args:
        train: Sessions to show as neighbours, those with gold.
        validation: Sessions with gold to score on, none of them in ``train``.
        knowledge: What was distilled from ``train``.
        config: All settings; None for the defaults.
        lm: The program's language model, instead of the one that the config names.
        store: The artifact store or its folder; None for the one in the cache folder.
        on_trial: Called with each candidate's trial as it is scored, e.g. to show progress.

    Returns:
        The program, without its LM; its ``trials`` say what was tried, the grouping last.

    Raises:
        SettingError: A setting is not allowed, the sets overlap, or no validation session has
            gold.

    Example:
        >>> from routedk import CompileConfig, DataOptions, compile_program
        >>> from routedk import distill, load_sessions, split_sessions
        >>> parts = split_sessions(load_sessions("demo"), DataOptions())
        >>> knowledge = distill(parts["train"])
        >>> config = CompileConfig(student="default", evaluations=2, max_validation=4)
        >>> program = compile_program(parts["train"], parts["val"][:4], knowledge, config)
        >>> [trial["sessions"] for trial in program.trials]
        [4, 4, 4]
    """
    import dspy

    from routedk.adapters.experts.routing_file import read_routing
    from routedk.adapters.generate import GenerateConfig, generate
    from routedk.adapters.lm import resolve_lm
    from routedk.data.records import session_to_record
    from routedk.optimizers.grouping_search import GroupingSearch
    from routedk.optimizers.knowledge_injection import KnowledgeInjection
    from routedk.optimizers.metric import as_examples
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.lm_identity import lm_identity
    from routedk.programs.program_file import load_program

    config = config or CompileConfig()
    store = ArtifactStore.of(store)
    if config.experts is not None:
        trained = read_routing(config.experts).get("training", {}).get("utilization")
        if trained and config.utilization not in (None, trained):
            raise SettingError(
                f"utilization {config.utilization!r}: the experts were trained for {trained!r}, "
                "leave the option out or train them again"
            )
        config = replace(config, utilization=config.utilization or trained)
    texts = read_instructions(config)
    model = lm or resolve_lm(config.lm, config.experts, config.student, config.dtype)

    answered: dict[tuple[str, str], Answer] = {}

    def answering(program: "BundleGenerator", sessions: Sequence[Session]) -> list[Answer]:
        """Ask what was not asked before: the grouping is chosen on the kept candidate's answers."""
        key, settings = program.fingerprint(), GenerateConfig(threads=config.threads)
        left = [session for session in sessions if (key, session.id) not in answered]
        for answer in generate(left, settings, program=program, lm=model, store=store):
            answered[key, answer.session_id] = answer
        return [answered[key, session.id] for session in sessions]

    def make(out: Path, work: Path) -> None:
        injection = KnowledgeInjection(knowledge, config, on_trial=on_trial, answering=answering)
        grouping = GroupingSearch(num_threads=config.threads, answering=answering)
        sets = {"trainset": as_examples(train), "valset": as_examples(validation)}
        with dspy.context(lm=model):
            program = grouping.compile(injection.compile(BundleGenerator(), **sets), **sets)
        program.save(out / _PROGRAM)

    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_IN_KEY}
    recipe = Recipe(
        stage="program",
        inputs={
            "train": content_hash(list(map(session_to_record, train))),
            "validation": content_hash(list(map(session_to_record, validation))),
            "knowledge": content_hash(asdict(knowledge)),
            "instructions": content_hash(texts),
        },
        settings={**settings, "lm": lm_identity(model)},
    )
    return load_program(store.obtain(recipe, make).folder / _PROGRAM)
