"""`compile_program`: chooses a program's prompt and grouping by their scores on validation."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routedk.artifacts import ArtifactStore, Recipe, content_hash
from routedk.errors import SettingError
from routedk.optimizers.compile_config import CompileConfig, read_instructions
from routedk.types import Answer, KnowledgeBase, Session

if TYPE_CHECKING:
    import dspy

    from routedk.programs.generator import BundleGenerator

_PROGRAM = "program.json"
# Left out of the recipe's settings: threads change no result, the others count by their content.
_NOT_IN_KEY = ("threads", "instruction", "lm", "experts", "student")


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

    First `KnowledgeInjection` chooses the instruction, rules, patterns and neighbours, then
    `GroupingSearch` chooses how to form bundles from the intents that the student names. The plain
    program is kept unless another is better, session by session, beyond chance. The result and all
    candidates' answers are kept in the store: repeating a call returns at once, and an interrupted
    one resumes without asking about any session twice.

    Args:
        train: Training sessions; those with gold may be shown as neighbours.
        validation: Sessions with gold to score on, none of them in ``train``.
        knowledge: Knowledge distilled from ``train``.
        config: All settings; None for the defaults.
        lm: The program's language model, instead of the one that the config names. If neither is
            given, it is the embedded student, zero-shot.
        store: The artifact store or its folder; None for the one in the cache folder.
        on_trial: Called with each candidate's trial as it is scored, e.g. to show progress.

    Returns:
        The program, without its LM; its ``trials`` record what was tried, the grouping last.

    Raises:
        SettingError: A setting is not allowed, the sets overlap, or no validation session has
            gold.

    Example:
        >>> from routedk import CompileConfig, DataOptions, compile_program
        >>> from routedk import distill, load_sessions, split_sessions
        >>> parts = split_sessions(load_sessions("demo"), DataOptions())
        >>> knowledge = distill(parts["train"])
        >>> config = CompileConfig(evaluations=2, max_validation=4)
        >>> program = compile_program(parts["train"], parts["val"][:4], knowledge, config)
        >>> [trial["sessions"] for trial in program.trials]
        [4, 4, 4]
    """
    import dspy

    from routedk.adapters.answering import GenerateConfig
    from routedk.adapters.experts.routing_file import read_routing
    from routedk.adapters.generate import generate
    from routedk.adapters.lm import resolve_lm
    from routedk.data.records import session_to_record
    from routedk.optimizers.grouping_search import GroupingSearch
    from routedk.optimizers.knowledge_injection import KnowledgeInjection
    from routedk.optimizers.metric import as_examples
    from routedk.programs.generator import BundleGenerator, load_program
    from routedk.programs.lm_identity import lm_identity

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

    def answering(program: "BundleGenerator", sessions: Sequence[Session]) -> list[Answer]:
        settings = GenerateConfig(threads=config.threads)
        return generate(sessions, settings, program=program, lm=model, store=store)

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
