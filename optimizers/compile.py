"""`compile_program`: chooses a program's prompt and grouping by their scores on validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from routedk.errors import SettingError
from routedk.types import KnowledgeBase, Session

if TYPE_CHECKING:
    from routedk.programs.generator import BundleGenerator


@dataclass(frozen=True, kw_only=True)
class CompileConfig:
    """All settings of a compilation.

    Args:
        evaluations: Candidates scored, the plain program among them.
        level: How often at most chance alone should replace the plain program, above 0 and below
            1; shared among the candidates.
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
        seed: Seed of all chance.
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
        from routedk.programs.knowledge.utilization import utilization_of

        wanted = utilization_of(self.utilization)
        if wanted is not None and not wanted.trains and self.experts is not None:
            raise SettingError(
                f"utilization {self.utilization!r} trains no experts: leave experts out, name "
                "student or lm"
            )

    @property
    def fixed(self) -> bool:
        """Whether the prompt is given, instead of chosen on validation."""
        return any(count is not None for count in (self.neighbours, self.rules, self.patterns))


def compile_program(
    train: Sequence[Session],
    validation: Sequence[Session],
    knowledge: KnowledgeBase,
    config: CompileConfig | None = None,
    *,
    lm: Any = None,
    store: Any = None,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> "BundleGenerator":
    """Choose the prompt and the grouping of a program by their scores on validation sessions.

    First `KnowledgeInjection` chooses instruction, rules, patterns and neighbours, then
    `GroupingSearch` how bundles are made of the intents that the student names. The plain program
    stays where nothing is better than it, session by session, beyond chance.

    Args:
        train: Sessions to show as neighbours, those with gold.
        validation: Sessions with gold to score on, none of them in ``train``.
        knowledge: What was distilled from ``train``.
        config: All settings.
        lm: The program's ``dspy.LM``, instead of the one that the config names.
        store: Keeps the result: the same inputs give it at once.
        on_trial: Called with each candidate's trial, e.g. to show progress.

    Returns:
        The program, without its LM; its ``trials`` say what was tried, the grouping last.

    Raises:
        SettingError: A setting is not allowed, the sets overlap, or no validation session has
            gold.
    """
    import dspy

    from routedk.adapters.experts.routing_file import read_routing
    from routedk.adapters.lm import resolve_lm
    from routedk.files import read_text
    from routedk.optimizers.grouping_search import GroupingSearch
    from routedk.optimizers.knowledge_injection import KnowledgeInjection
    from routedk.optimizers.metric import as_examples
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.knowledge.utilization import agreed_utilization

    config = config or CompileConfig()
    utilization: str | None = config.utilization
    if config.experts is not None:
        trained = read_routing(config.experts).get("training", {}).get("utilization")
        utilization = agreed_utilization(trained, utilization)
    injection = KnowledgeInjection(
        knowledge,
        evaluations=config.evaluations,
        level=config.level,
        instructions=[read_text(path) for path in config.instruction],
        token_budget=config.token_budget,
        max_validation=config.max_validation,
        retriever=config.retriever,
        utilization=utilization,
        num_threads=config.threads,
        seed=config.seed,
        on_trial=on_trial,
    )
    model = lm or resolve_lm(config.lm, config.experts, config.student, config.dtype)
    sets = {"trainset": as_examples(train), "valset": as_examples(validation)}
    with dspy.context(lm=model):
        informed = injection.compile(BundleGenerator(), **sets)
        return GroupingSearch(num_threads=config.threads).compile(informed, **sets)
