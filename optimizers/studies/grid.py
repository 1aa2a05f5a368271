"""`StudyGrid`: the systems of a study, how much data a budget gives them, what is compared."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from routedk.data.validation import checked
from routedk.errors import DataError
from routedk.files import read_toml
from routedk.optimizers.search.space import FormatSet, TrialSettings, Values, members
from routedk.programs.knowledge.utilization import UtilizationName, is_shown, is_trained
from routedk.programs.teachers.config import Strategy

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Paper = Literal["kd", "routedk"]
BudgetName = Literal["small", "full"]
_Count = Annotated[int, Field(ge=1)]
_IN_TRAINING = ("r", "learning_rate", "epochs")
_IN_PROMPT = {"rules": "rule", "neighbours": "thought"}
# The one system of a varied grid for each set of experts: what learns from all of its formats.
_LEARNERS: Mapping[tuple[str, ...], str] = {
    (): "base",
    ("rule",): "rule",
    ("thought",): "thought",
    ("rule", "thought"): "mixed",
}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Dimensions(_Table):
    """The values of each dimension of a grid, all of whose combinations are systems.

    Args:
        formats: Sets of knowledge formats, joined by ``+``.
        strategy: Sampling strategies.
        ratio: Sampling ratios.
        utilization: Where knowledge is used.
    """

    formats: Values[FormatSet]
    strategy: Values[Strategy] = ("random",)
    ratio: Values[Annotated[float, Field(gt=0, le=1)]] = (1.0,)
    utilization: Values[UtilizationName] = ("ICL",)


class Budget(_Table):
    """What a study may spend.

    Args:
        train: Training sessions with gold, a seeded sample; unset: all.
        validation: Validation sessions with gold, likewise.
        test: Test sessions with gold, likewise.
        settings: Of every system, over those of the grid.
        vary: Dimensions that have other values than in the grid.
    """

    train: _Count | None = None
    validation: _Count | None = None
    test: _Count | None = None
    settings: dict[str, Any] = {}
    vary: dict[str, Any] = {}


class Question(_Table):
    """A figure: one dimension of the grid against matched F1.

    Args:
        title: The question.
        dimension: Its values are compared.
        by: A line for each value of this dimension.
    """

    title: str
    dimension: Literal["formats", "strategy", "ratio", "utilization"]
    by: Literal["formats", "strategy", "ratio", "utilization"]


class StudyGrid(_Table):
    """A study as its TOML file states it.

    Args:
        title: Of the report.
        budget: By name.
        settings: `TrialSettings` of every system, where they have a use.
        systems: Systems by name, each with `TrialSettings` of its own.
        vary: Dimensions whose combinations are further systems.
        compare: Pairs of systems or baselines whose difference is reported.
        questions: The figures.
    """

    title: str
    budget: dict[BudgetName, Budget]
    settings: dict[str, Any] = {}
    systems: dict[str, dict[str, Any]] = {}
    vary: Dimensions | None = None
    compare: list[tuple[str, str]] = []
    questions: list[Question] = []

    @model_validator(mode="after")
    def _valid(self) -> "StudyGrid":
        for name in self.budget:
            if not self.chosen(name):
                raise ValueError("there is neither a system nor a dimension")
        return self

    def chosen(self, budget: BudgetName) -> dict[str, TrialSettings]:
        """The systems of a budget, by name, no two of them alike."""
        given = self.budget[budget]
        common = {**self.settings, **given.settings}
        found = {name: _settings(common, own) for name, own in self.systems.items()}
        if self.vary is not None:
            vary = Dimensions(**{**self.vary.model_dump(), **given.vary})
            known = {*found.values()}
            names = tuple(Dimensions.model_fields)
            for values in product(*(getattr(vary, name) for name in names)):
                settings = _varied(common, **dict(zip(names, values, strict=True)))
                if settings is not None and settings not in known:
                    known.add(settings)
                    found[_named(settings)] = settings
        return found


class Listed:
    """A search space of listed systems.

    Args:
        systems: By name.
    """

    def __init__(self, systems: Mapping[str, TrialSettings]) -> None:
        self.systems = systems

    def suggest(self, trial: "BaseTrial") -> TrialSettings:
        """The settings of the system that a sampler chooses."""
        return self.systems[trial.suggest_categorical("system", tuple(self.systems))]

    def model_dump(self, *, mode: str = "json") -> dict[str, Any]:
        """The systems, ready for JSON."""
        return {"systems": {name: one.to_dict() for name, one in self.systems.items()}}


def read_grid(grid: str | Path) -> StudyGrid:
    """Read the grid of a paper, ``kd`` or ``routedk``, or of a TOML file laid out as theirs.

    Raises:
        DataError: The file cannot be read, is not TOML, or states what is not allowed.
    """
    papers = get_args(Paper)
    path = Path(__file__).with_name(f"{grid}.toml") if grid in papers else Path(grid)
    found = checked(TypeAdapter(StudyGrid), read_toml(path), path=path, hint="see docs/papers.md")
    if missing := {*("small", "full")} - {*found.budget}:
        raise DataError(f"there is no budget {', '.join(sorted(missing))}", path=path)
    return found


def _settings(common: Mapping[str, Any], own: Mapping[str, Any]) -> TrialSettings:
    """A system's settings; of the common ones those that have a use."""
    stated = TrialSettings(**own)
    if unknown := common.keys() - {*_IN_TRAINING, *_IN_PROMPT}:
        raise ValueError(f"settings: {', '.join(sorted(unknown))} cannot be common to all systems")
    names = [name for name in _IN_TRAINING if is_trained(stated.utilization)]
    if is_shown(stated.utilization):
        names += [name for name, format in _IN_PROMPT.items() if format in stated.formats]
    return TrialSettings(**{name: common[name] for name in names if name in common} | {**own})


def _varied(
    common: Mapping[str, Any], *, formats: str, strategy: str, ratio: float, utilization: str
) -> TrialSettings | None:
    """The system of one combination; None where no expert would learn from its formats."""
    shown = members(formats)
    own: dict[str, Any] = {"utilization": utilization, "formats": shown, "ratio": ratio}
    # All sessions are the same sample by every strategy.
    own["strategy"] = strategy if ratio < 1 else "random"
    if is_trained(utilization):
        learner = _LEARNERS[tuple(one for one in shown if one != "pattern")]
        if learner == "base" and shown and not is_shown(utilization):
            return None
        own["experts"] = tuple(dict.fromkeys(("base", learner)))
        own["fusion"] = f"single:{learner}"
    return _settings(common, own)


def _named(settings: TrialSettings) -> str:
    sample = f"{settings.strategy} {settings.ratio:g}" if settings.ratio < 1 else "all"
    return f"{settings.utilization}, {'+'.join(settings.formats) or 'no knowledge'}, {sample}"
