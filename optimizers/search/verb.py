"""`search`: one study over what is distilled, how experts are trained and what prompts show."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from routedk.artifacts import ArtifactStore
from routedk.optimizers.search.config import SearchConfig
from routedk.optimizers.search.space import SearchSpace, read_space
from routedk.types import Session

if TYPE_CHECKING:
    import optuna

    from routedk.optimizers.search.study import OnTrial


def search(
    train: Sequence[Session],
    validation: Sequence[Session],
    config: SearchConfig | None = None,
    *,
    space: SearchSpace | None = None,
    callbacks: "Sequence[OnTrial]" = (),
    store: ArtifactStore | str | Path | None = None,
) -> "optuna.Study":
    """Try combinations of knowledge, training and prompt, each scored on validation sessions.

    Each trial distills, trains, compiles and answers; steps that trials share run only once. The
    same call resumes an interrupted study, or joins a running one as another worker.

    Args:
        train: Training sessions: knowledge, experts and neighbours come from those with gold.
        validation: Validation sessions: trials are scored on those with gold; none in ``train``.
        config: Settings; None for the defaults.
        space: The search space, instead of the file that the config names.
        callbacks: Optuna callbacks, called with every trial that ends in this worker, e.g. the
            ``MLflowCallback`` of optuna-integration.
        store: The artifact store or its folder; None for the one in the cache folder.

    Returns:
        The study. ``study.best_trials`` are its best trials, their ``user_attrs["settings"]`` their
        settings.

    Raises:
        SettingError: A setting is not allowed, a session is in both sets or none has gold, or the
            study was made with other data or settings.
        RouteDKError: The storage failed, or a trial failed for a reason that is not its own.

    Example:
        >>> from routedk import SearchConfig, load_sessions, search, split_sessions
        >>> parts = split_sessions(load_sessions("demo"))
        >>> config = SearchConfig(study="mine", trials=1)
        >>> study = search(parts["train"][:8], parts["val"][:2], config)
    """
    from routedk.optimizers.search.study import run_study
    from routedk.optimizers.search.trial import TrialRunner

    # Errors that would affect every trial are raised before the study is created.
    config = with_student(config or SearchConfig())
    if space is None:
        space = SearchSpace() if config.space is None else read_space(config.space)
    runner = TrialRunner(train, validation, config, store)
    return run_study(
        runner.answers,
        runner.validation,
        space,
        config,
        identity=runner.identity,
        callbacks=callbacks,
    )


def with_student(config: SearchConfig) -> SearchConfig:
    """The config with its student as a study records it: a folder by its absolute path.

    Raises:
        StudentError: The student cannot be found.
    """
    from routedk.adapters.student import DEFAULT_STUDENT, chosen_student, find_student

    named = chosen_student(config.student)
    student = find_student(named or DEFAULT_STUDENT)
    local = named is not None and Path(named).is_dir()
    return replace(config, student=str(student.resolve()) if local else named)
