"""`study_paper`: runs the systems of a paper's grid and reports their results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from routedk.adapters.student import Dtype
from routedk.artifacts import ArtifactStore
from routedk.checks import check_choices, check_least
from routedk.errors import DataError, SettingError
from routedk.optimizers.search.config import SearchConfig, StudyConfig
from routedk.optimizers.search.verb import with_student
from routedk.optimizers.studies.grid import BudgetName, ListedSystems, Paper, read_grid
from routedk.programs.knowledge.utilization import is_trained
from routedk.types import Answer, Session


@dataclass(frozen=True, kw_only=True)
class PaperConfig(StudyConfig):
    """Settings of `study_paper`.

    Args:
        study: Name of the study. If the storage has a study of this name, it is resumed or joined.
        storage: Where the study is kept, as for search. Unset: study.db in the output folder.
        budget: small (for two CPU cores) or full (for a GPU).
        grid: TOML file of systems and budgets, instead of the paper's.
        answers: Recorded answers of a teacher, as distill takes them, used as the source of
            knowledge instead of gold. Repeatable.
        student: Folder or hub name of a causal LM. Unset or default: the embedded student.
        dtype: Student dtype when answering: float32, bfloat16 or float16. Unset: float32 on a CPU,
            else bfloat16.
        seed: Seed of all random choices.

    Raises:
        SettingError: A value is not allowed.
    """

    study: str = "paper"
    budget: BudgetName = "small"
    grid: Path | None = None
    answers: tuple[Path, ...] = ()
    student: str | None = None
    dtype: Dtype | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_choices(self)
        check_least(self, seed=0)


def _database(file: Path) -> str:
    """The URL of an SQLite file, whatever characters its path has."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(file)).render_as_string()


def study_paper(
    paper: Paper,
    parts: Mapping[Any, Sequence[Session]],
    output: str | Path,
    config: PaperConfig | None = None,
    *,
    reference: Sequence[Answer] | None = None,
    store: ArtifactStore | str | Path | None = None,
) -> dict[str, Any]:
    """Run every system of a paper's grid on the test sessions, and compare them with baselines.

    A study is a search over a fixed grid: each system is one trial, which distills, trains,
    compiles and answers; steps that systems share run only once. The same call resumes an
    interrupted study, or joins a running one as another worker.

    Args:
        paper: kd (which knowledge, how much, used where; arXiv 2504.17220), or routedk (mixed
            against routed experts; arXiv 2508.17250).
        parts: Training, validation and test sessions as returned by `split_sessions`. The budget
            limits how many of those with gold are used; knowledge is distilled from all training
            sessions.
        output: Folder for ``report.json``, ``report.html`` and the study.
        config: Settings; None for the defaults.
        reference: The teacher's own answers to the test sessions, which are scored as well.
        store: The artifact store or its folder; None for the one in the cache folder.

    Returns:
        What ``report.json`` holds.

    Raises:
        SettingError: A setting is not allowed, the study was made with other settings, the
            reference lacks a test session, or no system could be run.
        DataError: The grid or the answers cannot be read, or no test session has gold.
        RouteDKError: The storage failed, or a trial failed for a reason that is not its own.

    Example:
        >>> from routedk import PaperConfig, load_sessions, split_sessions, study_paper
        >>> parts = split_sessions(load_sessions("demo"))
        >>> report = study_paper("kd", parts, "kd-demo")  # doctest: +SKIP
    """
    from optuna.samplers import GridSampler

    from routedk.optimizers.search.study import run_study
    from routedk.optimizers.search.trial import TrialRunner, gold_sample, sessions_record
    from routedk.optimizers.studies.report import write_study

    config = config or PaperConfig()
    if paper not in get_args(Paper):
        raise SettingError(f"paper={paper!r}: it must be {' or '.join(get_args(Paper))}")
    grid = read_grid(config.grid or paper)
    systems, budget = grid.of(config.budget), grid.budget[config.budget]
    validation = gold_sample(parts["val"], budget.validation, config.seed)
    test = gold_sample(parts["test"], budget.test, config.seed)
    if not test:
        raise DataError("test: no session has gold bundles, a study needs them")
    if both := {s.id for s in test} & {s.id for s in (*parts["train"], *validation)}:
        raise SettingError(f"test sessions are in other splits, too, e.g. {min(both)!r}")
    if reference is not None:
        answered = {answer.session_id for answer in reference if not answer.error}
        if count := sum(session.id not in answered for session in test):
            raise SettingError(f"reference: lacks {count} of the {len(test)} test sessions")
    search = SearchConfig(
        study=config.study,
        storage=config.storage or _database(Path(output).resolve() / "study.db"),
        trials=len(systems),
        answers=config.answers,
        student=config.student,
        dtype=config.dtype,
        seed=config.seed,
    )
    # Knowledge may come from any training session, as a teacher's rules do.
    runner = TrialRunner(
        parts["train"], validation, with_student(search), store, max_sessions=budget.train
    )
    for settings in systems.values():
        if is_trained(settings.utilization):
            runner.train_config(settings)  # Raises now if any of them is invalid.
    Path(output).mkdir(parents=True, exist_ok=True)
    study = run_study(
        lambda settings: runner.answers(settings, test),
        test,
        ListedSystems(systems),
        search,
        identity={
            **runner.identity,
            "paper": paper,
            "test": sessions_record(test),
            "budget": {"name": config.budget, "train": budget.train},
        },
        sampler=GridSampler({"system": list(systems)}, seed=config.seed),
    )
    return write_study(output, study, grid, config, runner, test, reference)
